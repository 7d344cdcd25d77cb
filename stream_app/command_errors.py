"""Ends a command of operators with a text for each error, not with a traceback."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from streaming_exporter.errors import BadSettings, ExporterError, UsageError

FAILED, USAGE = 1, 2
"""Exit codes: after a failure, and after an error that the caller can correct."""


@contextmanager
def exit_on_error(timed_out: str) -> Iterator[None]:
    """Print an error of the block as one red text and exit. The log is silent: what it has is in the output.

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
        raise _exit(str(error), USAGE) from error
    except (ExporterError, TimeoutError) as error:
        raise _exit(str(error) or timed_out, FAILED) from error
    finally:
        structlog.configure(**before)


def _exit(text: str, code: int) -> typer.Exit:
    typer.secho(text, fg="red", err=True)
    return typer.Exit(code)
