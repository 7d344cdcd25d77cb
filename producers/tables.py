"""Prints rows in columns, and texts of users without control characters."""

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import typer


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Return rows as lines with aligned columns; those in ``right`` are aligned to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        plain(
            "  ".join(
                text.rjust(width) if place in right else text.ljust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
        for row in rows
    ]


def print_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), headed: bool = True) -> None:
    """Print a table whose first row has the names of its columns; ``headed``: print this row too.

    On a terminal that is too narrow for the table, the cells after the first stand in a line below it.
    """
    lines = table(rows, right=right)
    too_wide = sys.stdout.isatty() and max(map(len, lines)) > shutil.get_terminal_size().columns
    if not too_wide:
        for line in lines if headed else lines[1:]:
            typer.echo(line)
        return
    for row in rows[1:]:
        typer.echo(plain(row[0]))
        typer.echo(plain("    " + "  ".join(filter(None, row[1:]))))


def plain(text: str, *, kept: str = "") -> str:
    """Return text without control characters, because users have chosen it."""
    return "".join(
        char if char.isprintable() or char in kept else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def utc_time(text: str | None) -> str:
    """Return a time of the API in UTC to the second, such as ``2026-11-24 06:00:00Z``."""
    if text is None:
        return "-"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``0.35 s``, ``48 s``, ``12 min``, ``3.5 h``, ``2.0 days``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
