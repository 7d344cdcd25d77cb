"""How the command line ends when something is wrong: one red line that says what to do, and a code."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from producers.errors import UsageError
from stream_app.errors import ExporterError, Rejected

FAILED, USAGE, INTERRUPTED = 1, 2, 130


@contextmanager
def ends_well() -> Iterator[None]:
    """Turn errors that the project raises on purpose into a line and an exit code."""
    # What libraries log about an error is in the error as well, in words for users.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        yield
    except (UsageError, Rejected) as error:
        raise _exit(str(error), USAGE) from error
    except ExporterError as error:
        raise _exit(str(error), FAILED) from error
    except ValueError as error:
        raise _exit(_bad_setting(error), USAGE) from error


def _bad_setting(error: ValueError) -> str:
    """What pydantic says about a setting; any other error of that kind is a mistake in the program."""
    from pydantic import ValidationError  # slow to import

    if not isinstance(error, ValidationError) or error.title != "Settings":
        raise error
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"EXPORTER_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"


def _exit(message: str, code: int) -> typer.Exit:
    typer.secho(message, fg=typer.colors.RED, err=True)
    return typer.Exit(code)
