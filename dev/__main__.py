"""``python -m dev``: runs the service, a demonstration, or the image, on this machine."""

from typing import Annotated

import typer

from dev.commands import Rows, cli, exit_on_stack_error

cli.info.help = __doc__


@cli.command()
def image(
    tag: Annotated[str, typer.Option(help="Name of the image")] = "streaming-exporter:local",
) -> None:
    """Build the image with podman or Docker."""
    from dev.container_engine import ContainerEngine

    with exit_on_stack_error():
        engine = ContainerEngine.find()
        from dev.image import build_image  # takes longer than to find no engine

        build_image(engine, tag)


@cli.command()
def image_test(
    tag: Annotated[str, typer.Option(help="Name of the image")] = "streaming-exporter:local",
    rows: Rows = 5_000,
    build: Annotated[bool, typer.Option(help="Build the image first")] = True,
) -> None:
    """Build the image and run the service from it as the Compose file does, on local services."""
    from dev.container_engine import ContainerEngine
    from dev.image import build_image, check_image

    with exit_on_stack_error():
        engine = ContainerEngine.find()
        if build:
            build_image(engine, tag)
        check_image(engine, rows, tag)


if __name__ == "__main__":
    cli(prog_name="python -m dev")
