"""Logging: JSON lines in production, readable on a terminal."""

import logging
import sys
import time
from collections import OrderedDict

import stamina.instrumentation
import structlog

from stream_app.observability import tracing
from stream_app.settings import Settings

log = structlog.get_logger(__name__)

REPEATED_SECONDS = 60.0
"""How long the same line of a library is left out after it was written."""

KNOWN_LINES = 500


class RepeatedLines(logging.Filter):
    """Leaves out lines of libraries that repeat: in an outage aiokafka writes some many times a second.

    The next one after :data:`REPEATED_SECONDS` says how many were left out. Lines of the service are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written: not if the same one was, within :data:`REPEATED_SECONDS`."""
        if not isinstance(record.msg, str) or record.levelno >= logging.CRITICAL:
            return True  # structlog gives a mapping
        text, now = record.getMessage(), time.monotonic()
        key = (record.name, text)
        written_at, left_out = self._written.pop(key, (float("-inf"), 0))
        if now - written_at < REPEATED_SECONDS:
            self._written[key] = written_at, left_out + 1
            return False
        self._written[key] = now, 0
        if len(self._written) > KNOWN_LINES:
            self._written.popitem(last=False)
        if left_out:
            record.msg, record.args = f"{text} (repeated {left_out} times)", ()
        return True


def log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    """Log the tries 1, 2, 4, 8 … of a call, so that a long outage writes few lines."""
    if details.retry_num & (details.retry_num - 1) == 0:
        log.warning(
            "call.retried",
            error=str(details.caused_by) or repr(details.caused_by),
            tries=details.retry_num,
            waited_seconds=round(details.waited_so_far, 1),
        )


def _add_trace_ids(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the ids of the current trace and span to a log line."""
    return {**tracing.trace_ids(tracing.current_span().traceparent), **line}


def _is_of_service(record: logging.LogRecord) -> bool:
    """Whether a line is none of Faust about a part that starts or stops, such as ``[^-App]: Starting...``."""
    return record.levelno > logging.INFO or not record.getMessage().startswith("[^")


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
    handler.addFilter(RepeatedLines())
    stamina.instrumentation.set_on_retry_hooks([log_retry])
    if settings.log_level != "DEBUG":
        handler.addFilter(_is_of_service)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for names_urls in (
        "httpx2",
        "httpcore2",
    ):  # their lines have URLs of receivers, some of which are secrets
        logging.getLogger(names_urls).setLevel(logging.WARNING)
    for chatty in ("aiokafka", "alembic", "faust", "mode"):
        logging.getLogger(chatty).setLevel(logging.INFO if settings.log_level == "DEBUG" else logging.WARNING)
