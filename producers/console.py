"""How the command line ends when something is wrong: one red line that says what to do, and a code."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from producers.errors import UsageError
from stream_app.errors import BadSettings, ExporterError, Rejected

FAILED, USAGE, INTERRUPTED = 1, 2, 130


@contextmanager
def ends_well() -> Iterator[None]:
    """Turn errors that the project raises on purpose into a line and an exit code."""
    # What libraries log about an error is in the error as well, in words for users.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        yield
    except (UsageError, Rejected, BadSettings) as error:
        raise _exit(str(error), USAGE) from error
    except ExporterError as error:
        raise _exit(str(error), FAILED) from error


def _exit(message: str, code: int) -> typer.Exit:
    typer.secho(message, fg=typer.colors.RED, err=True)
    return typer.Exit(code)
