"""The console entry point, also where only the library was installed."""

import sys

_PACKAGES = frozenset({"httpx", "joserfc", "rich", "typer"})
"""What the extra `cli` brings."""


def main() -> None:
    """Run the `exporter` command, or say what it lacks."""
    try:
        from producers.__main__ import cli
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        _explain(sys.argv[1:])
    else:
        cli(prog_name="exporter")


def _explain(arguments: list[str]) -> None:
    """Somebody who asks for the version or for help gets that; anybody else a reason and a code."""
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(version("streaming-exporter"))
        return
    text = (
        "This installation publishes events from Python, by streaming_exporter.publisher.Publisher.\n"
        "Commands need more packages: install streaming-exporter[cli] to ask for exports from a shell,\n"
        "streaming-exporter[worker] or streaming-exporter[api] to run the service."
    )
    if arguments in ([], ["--help"]):
        print(text)
        return
    print(text, file=sys.stderr)
    sys.exit(1)
