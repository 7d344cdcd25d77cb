"""Ends a command with a text for each error, not with a traceback; with ``--json`` the text is JSON."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

import typer

from streaming_exporter.errors import BadSettings, ExporterError, UsageError

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


def prints_json() -> bool:
    """Return whether errors of the command that runs are JSON."""
    return _prints_json.get()


def exit_with(text: str, code: int, word: str = "error") -> typer.Exit:
    """Print an error; return the exit with the code.

    Args:
        text: what is wrong, for people.
        code: the exit code.
        word: the stable word of the error, which is part of it with ``--json``.
    """
    if prints_json():
        typer.echo(json.dumps({"error": {"code": word, "message": text}}, ensure_ascii=False), err=True)
    else:
        typer.secho(text, fg=typer.colors.RED, err=True)
    return typer.Exit(code)


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
        raise exit_with(str(error), USAGE, error.code) from error
    except ExporterError as error:
        raise exit_with(str(error), FAILED, error.code) from error
    except TimeoutError as error:
        raise exit_with(str(error) or timed_out, FAILED, "timeout") from error
    finally:
        structlog.configure(**before)
