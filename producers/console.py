"""Error handling of the command line, and commands from other packages."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from streaming_exporter.errors import BadSettings, ExporterError, Rejected, UsageError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

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


def print_json(document: object) -> None:
    """Print a document as one line of JSON."""
    typer.echo(json.dumps(document, ensure_ascii=False, default=str))


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error of the project as one red line, and exit with its code."""
    # The error contains what the libraries log about it, in words for users.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        yield
    except (UsageError, Rejected, BadSettings) as error:
        raise _exit(str(error), USAGE, error.code) from error
    except ExporterError as error:
        raise _exit(str(error), FAILED, error.code) from error


def _exit(message: str, code: int, word: str = "error") -> typer.Exit:
    """Print an error; ``word`` is its stable word, which is part of it with ``--json``."""
    if _prints_json.get():
        typer.echo(json.dumps({"error": {"code": word, "message": message}}, ensure_ascii=False), err=True)
    else:
        typer.secho(message, fg=typer.colors.RED, err=True)
    return typer.Exit(code)


GROUP = "exporter.commands"
"""Group of entry points. Each is a Typer application whose commands are added to ``exporter``."""


class ExtensibleGroup(TyperGroup):
    """A command group with the commands of the entry points of :data:`GROUP`.

    The commands of a package whose dependencies are missing are left out of the list.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, those of this package first."""
        for entry in _entries():
            self._add(entry)
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command ``cmd_name``. The entry point of the same name is loaded first."""
        for entry in sorted(_entries(), key=lambda entry: entry.name != cmd_name):
            if cmd_name in self.commands:
                break
            failure = self._add(entry)
            if failure is not None and entry.name == cmd_name:
                ctx.fail(
                    f"{cmd_name} needs more packages; "
                    f"install streaming-exporter-service[{_extra(entry)}] ({failure})"
                )
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a command. If a package is missing, exit with the names of the extras that install it."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            _use_own_words(error)
            raise
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if not missing or find_spec(missing) is not None:
                raise
            names = sorted({_extra(entry) for entry in _entries()})
            extras = " or ".join(f"streaming-exporter-service[{name}]" for name in names)
            text = f"this command needs the package {missing}, which is not installed; install {extras}"
            raise _exit(text, FAILED) from error

    def _add(self, entry: EntryPoint) -> ImportError | None:
        try:
            application: typer.Typer = entry.load()
        except ImportError as error:
            return error
        for name, command in get_group(application).commands.items():
            self.commands.setdefault(name, command)
        return None


@cache
def _entries() -> list[EntryPoint]:
    """Return the entry points. They are read once, because that opens every installed package."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def _extra(entry: EntryPoint) -> str:
    """Return the extra that an entry point needs: the one it names, or else that of its own name."""
    return entry.extras[0] if entry.extras else entry.name


def _use_own_words(error: typer.BadParameter) -> None:
    """Say what is wrong with an option in the words of the service, not in those of its validator."""
    from pydantic import ValidationError  # it takes long to import

    from streaming_exporter.validation import with_value

    if isinstance(error.__cause__, ValidationError):
        error.message = with_value(error.__cause__.errors(include_url=False)[0])
