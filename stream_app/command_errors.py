"""Ends a command with a text for each error, not with a traceback; with ``--json`` the text is JSON."""

import codecs
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from io import TextIOWrapper
from typing import Annotated
from uuid import UUID

import typer

from streaming_exporter.errors import ApiError, BadSettings, ExporterError, PublishError, UsageError

FAILED, USAGE = 1, 2
"""Exit codes: after a failure, and after an error that the caller can correct."""

_prints_json: ContextVar[bool] = ContextVar("prints_json", default=False)
"""Whether the command that runs has ``--json``."""


def note_json(as_json: bool) -> bool:
    """Note the value of the option ``--json`` for errors."""
    _prints_json.set(as_json)
    return as_json


AsJson = Annotated[
    bool, typer.Option("--json", callback=note_json, help="Print JSON, also of an error (on standard error)")
]
"""The option ``--json`` of a command; its parameter is ``as_json``."""

JsonLines = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=note_json,
        help="Print one line of JSON for each, also of an error (on standard error)",
    ),
]
"""The option ``--json`` of a command that lists."""


def write_any_text() -> None:
    """Let standard output and standard error take characters that their encoding does not have, as of cp437.

    They are written as in JSON (``\\u2026``), so that JSON with them stays JSON.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters, and where the text goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


ESCAPES = "exporter-json-escapes"
codecs.register_error(ESCAPES, _escaped)


def prints_json() -> bool:
    """Return whether errors of the command that runs are JSON."""
    return _prints_json.get()


def exit_with(
    text: str, code: int, word: str = "error", facts: Mapping[str, object] | None = None
) -> typer.Exit:
    """Print an error; return the exit with the code.

    Args:
        text: what is wrong, for people.
        code: the exit code.
        word: the stable word of the error, which is part of it with ``--json``.
        facts: what else is part of it with ``--json``, such as those of :func:`error_fields`.
    """
    if prints_json():
        document = {"error": {"code": word, "message": text, **(facts or {})}}
        typer.echo(json.dumps(document, ensure_ascii=False), err=True)
    else:
        typer.secho(text, fg=typer.colors.RED, err=True)
    return typer.Exit(code)


def error_fields(error: ExporterError) -> dict[str, object]:
    """Return what a program needs to go on after an error: its job, and how a call in doubt is repeated."""
    facts: dict[str, object] = {}
    if error.job_id is not None:
        facts["export_job_id"] = str(error.job_id)
    if isinstance(error, ApiError | PublishError):
        facts["is_in_doubt"] = error.is_in_doubt
    if isinstance(error, ApiError) and error.idempotency_key is not None:
        facts["idempotency_key"] = error.idempotency_key
    return facts


@contextmanager
def about_job(job_id: UUID) -> Iterator[None]:
    """Note in an error of the block which job it is about."""
    try:
        yield
    except ExporterError as error:
        error.job_id = job_id
        raise


@contextmanager
def exit_on_error(timed_out: str) -> Iterator[None]:
    """Print an error of the block as one text and exit. The log is silent: what it has is in the output.

    Args:
        timed_out: the text for a time-out that has none of its own.

    Raises:
        typer.Exit: the block raised an error of the service, or a time-out.
    """
    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    except (UsageError, BadSettings) as error:
        raise exit_with(str(error), USAGE, error.code, error_fields(error)) from error
    except ExporterError as error:
        raise exit_with(str(error), FAILED, error.code, error_fields(error)) from error
    except TimeoutError as error:
        raise exit_with(str(error) or timed_out, FAILED, "timeout") from error
    finally:
        structlog.configure(**before)
