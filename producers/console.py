"""Error handling of the command line, and commands from other packages."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_group

from stream_app.command_errors import FAILED as FAILED
from stream_app.command_errors import USAGE as USAGE
from stream_app.command_errors import AsJson as AsJson
from stream_app.command_errors import JsonLines as JsonLines
from stream_app.command_errors import about_job as about_job
from stream_app.command_errors import error_fields, exit_with, note_json, prints_json, write_any_text
from streaming_exporter.errors import BadSettings, ExporterError, Rejected, UsageError

_CommandLineError: type[TyperException] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError"
)
"""The base class of errors of a command line: unknown options, surplus arguments, wrong values.

Typer has no public name for it.
"""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def print_json(document: object) -> None:
    """Print a document as one line of JSON."""
    typer.echo(json.dumps(document, ensure_ascii=False, default=str))


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error of the project as one red line, or with ``--json`` as JSON, and exit with its code."""
    # The error contains what the libraries log about it, in words for users.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        yield
    except (UsageError, Rejected, BadSettings) as error:
        raise exit_with(str(error), USAGE, error.code, error_fields(error)) from error
    except ExporterError as error:
        raise exit_with(str(error), FAILED, error.code, error_fields(error)) from error


GROUP = "exporter.commands"
"""Group of entry points. Each is a Typer application whose commands are added to ``exporter``."""


SECTIONS = {
    "Exports": (
        "request", "status", "watch", "download", "cancel", "rerun", "password", "schedule",
    ),
    "Operation": (
        "overview", "jobs", "usage", "why", "pause", "resume", "pauses", "cancel-all", "resend", "forget",
        "doctor", "datasets", "destinations", "dead-letters", "token",
    ),
    "The service": ("up", "demo", "worker", "api", "tick", "migrate"),
}  # fmt: skip
"""The sections of the list of commands. Commands of other packages follow in a section of their own."""


class ExtensibleGroup(TyperGroup):
    """A command group with the commands of the entry points of :data:`GROUP`.

    The commands of a package whose dependencies are missing are left out of the list.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        write_any_text()
        return super().main(*args, **extra)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the sections."""
        for entry in _entries():
            self._add(entry)
        names = super().list_commands(ctx)
        known = [name for section in SECTIONS.values() for name in section]
        return sorted(names, key=lambda name: known.index(name) if name in known else len(known))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, in sections."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        limit = formatter.width - 6 - max(map(len, found))
        listed = {name for section in SECTIONS.values() for name in section}
        for title, names in {**SECTIONS, "Further commands": tuple(found.keys() - listed)}.items():
            rows = [(name, found[name].get_short_help_str(limit)) for name in names if name in found]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options of the group, and note whether the command that follows has ``--json``."""
        note_json("--json" in args)
        with _usage_errors_as_json():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command. If a package is missing, exit with the names of the extras that install it."""
        try:
            with _usage_errors_as_json():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if not missing or find_spec(missing) is not None:
                raise
            names = sorted({_extra(entry) for entry in _entries()})
            extras = " or ".join(f"streaming-exporter-service[{name}]" for name in names)
            text = f"this command needs the package {missing}, which is not installed; install {extras}"
            raise exit_with(text, FAILED) from error

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


@contextmanager
def _usage_errors_as_json() -> Iterator[None]:
    """Print what is wrong with the command line as JSON if ``--json`` is among its options."""
    try:
        yield
    except _CommandLineError as error:
        if isinstance(error, typer.BadParameter):
            _use_own_words(error)
        # A group without a command prints its help.
        if prints_json() and type(error).__name__ != "NoArgsIsHelpError":
            raise exit_with(error.format_message(), USAGE, UsageError.code) from error
        raise


def _use_own_words(error: typer.BadParameter) -> None:
    """Say what is wrong with an option in the words of the service, not in those of its validator."""
    from pydantic import ValidationError  # it takes long to import

    from streaming_exporter.validation import with_value

    if isinstance(error.__cause__, ValidationError):
        error.message = with_value(error.__cause__.errors(include_url=False)[0])
