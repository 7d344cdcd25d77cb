"""Logging: JSON lines in production, readable on a terminal."""

import logging
import sys

import structlog

from stream_app.observability import tracing
from stream_app.settings import Settings


def _add_trace_ids(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the ids of the current trace and span to a log line."""
    return {**tracing.trace_ids(tracing.current_span().traceparent), **line}


def configure(settings: Settings) -> None:
    """Route structlog and the standard library's logging to one handler on standard error."""
    pretty = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace_ids,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor] = (
        # A traceback must not show local variables, because they can hold a token.
        [
            structlog.dev.ConsoleRenderer(
                exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False)
            )
        ]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for names_urls in (
        "httpx2",
        "httpcore2",
    ):  # their lines have URLs of receivers, some of which are secrets
        logging.getLogger(names_urls).setLevel(logging.WARNING)
    for chatty in ("aiokafka", "faust", "mode"):
        logging.getLogger(chatty).setLevel(logging.INFO if settings.log_level == "DEBUG" else logging.WARNING)
