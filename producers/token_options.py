"""How the commands are given a bearer token: by the environment, a file, or, for all to see, as it is."""

import sys
from pathlib import Path
from typing import Annotated

import typer

STDIN = "-"
FILE = "@"
"""What a file's name begins with."""


def _read(value: str | None) -> str | None:
    """The token that the option stands for; others on this machine see the option, and not what it names."""
    if value is None or not (value == STDIN or value.startswith(FILE)):
        return value
    try:
        text = sys.stdin.read() if value == STDIN else Path(value.removeprefix(FILE)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{value} cannot be read: {error}") from error
    if not text.strip():
        raise typer.BadParameter(f"{value} is empty")
    return text.strip()


Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        callback=_read,
        metavar="@FILE",
        help="File with the bearer token, `-` for standard input, or the token itself, which others on this "
        "machine can see; default EXPORTER_TOKEN, else one is signed with EXPORTER_JWT_SECRET",
    ),
]
