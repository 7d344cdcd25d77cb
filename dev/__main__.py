"""``python -m dev``: runs the service, or a demonstration, on this machine."""

import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from dev.cache import ServiceError, UsageError
from dev.progress import console

cli = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, rich_markup_mode=None)

Rows = Annotated[int, typer.Option(min=1, help="Outbox entries of the sample")]


@cli.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API")] = 8000,
    workers: Annotated[int, typer.Option(min=0, help="Number of workers")] = 1,
    rows: Rows = 20_000,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for data, logs and stack.json", show_default=".local")
    ] = None,
) -> None:
    """Start everything and run until Ctrl-C; `exporter` of the same virtual environment uses it."""
    from dev.up import up
    from stream_app.setting_sources import VENV_SETTINGS_FILE

    with suppress(KeyboardInterrupt):  # Ctrl-C is the normal end
        if folder is None:
            up(port, workers, rows, Path(".local").absolute(), also_to=VENV_SETTINGS_FILE)
        else:
            up(port, workers, rows, folder.absolute())


@cli.command()
def demo(
    rows: Rows = 20_000,
    output: Annotated[Path, typer.Option(help="Folder for the files")] = Path("demo-exports"),
) -> None:
    """Export the sample in every format, download the files, stop."""
    from dev.demo import demo

    demo(rows, output.absolute())


@cli.command()
def image(
    tag: Annotated[str, typer.Option(help="Name of the image")] = "streaming-exporter:local",
) -> None:
    """Build the image with podman or Docker."""
    from dev.container_engine import ContainerEngine
    from dev.image import build_image

    build_image(ContainerEngine.find(), tag)


@cli.command()
def image_test(
    tag: Annotated[str, typer.Option(help="Name of the image")] = "streaming-exporter:local",
    rows: Rows = 5_000,
    build: Annotated[bool, typer.Option(help="Build the image first")] = True,
) -> None:
    """Build the image and run the service from it as the Compose file does, on local services."""
    from dev.container_engine import ContainerEngine
    from dev.image import build_image, check_image

    engine = ContainerEngine.find()
    if build:
        build_image(engine, tag)
    check_image(engine, rows, tag)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run a command. Exit with 1 after a failure, and with 2 if the caller can correct the error."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    try:
        cli(standalone_mode=True, prog_name="python -m dev")
    except (ServiceError, UsageError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
