"""Writes the results as Markdown."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from bench.contenders import OURS
from bench.kinds import Kind
from bench.results import Result, Results
from bench.targets import MEGABYTE, targets

_PACKAGES = (
    "asyncpg", "minio", "openpyxl", "reportlab", "pyarrow",
    "duckdb", "xlsxwriter", "rustpy-xlsxwriter", "fpdf2",
)  # fmt: skip

_INTRODUCTION = """\
# Measurements

Made by `make bench`; every figure below is from one run on one machine. What
counts is the ratios. {machine}

Every contender reads the same rows (the sample's ledger, or a table of ten short columns) from the same
PostgreSQL without an order, and puts its file into the same S3 bucket. It runs in a process of its own,
which has written 100 rows before. Contenders take turns; figures are medians of up to three rounds (one
where a round takes long).

- **time**: of the whole export, connections included. **to ours**: its time, with ours as 1.
- **memory**: the most that the process and its children held over what they held before, files in memory
  included. **CPU**: their processor time; PostgreSQL and S3 have theirs on the same cores.
- **stall**: the longest that a task of our event loop had to wait for its turn.
- **rows**: how many a reader that did not write the file found in it, where one was asked.
"""


def markdown(results: Results, services: Mapping[str, str]) -> str:
    """Return the whole report."""
    parts = [_INTRODUCTION.format(machine=_machine(services)), "## What it should reach\n"]
    parts.append(
        _table(
            ("what", "at most", "measured", "reached"),
            (
                (
                    target.what,
                    _figure(target.limit, target.unit),
                    "" if target.measured is None else _figure(target.measured, target.unit),
                    target.verdict,
                )
                for target in targets(results)
            ),
        )
    )
    for output, kind in dict.fromkeys((result.contender.format, result.kind) for result in results.all):
        parts.append(f"\n## {output}{', short rows' if kind is Kind.SHORT else ''}\n")
        parts.append(
            _format_table(
                [item for item in results.all if (item.contender.format, item.kind) == (output, kind)]
            )
        )
    return "\n".join(parts) + "\n"


def _format_table(results: Sequence[Result]) -> str:
    own = {result.rows: result.seconds for result in results if result.contender.name == OURS}
    return _table(
        ("rows", "contender", "time", "to ours", "memory", "CPU", "file", "stall", "rows found"),
        (_line(result, own.get(result.rows)) for result in results),
    )


def _line(result: Result, ours: float | None) -> tuple[str, ...]:
    name = f"**{result.contender.name}**" if result.contender.name == OURS else result.contender.name
    if result.error:
        return (f"{result.rows:,}", name, result.error, "", "", "", "", "", "")
    return (
        f"{result.rows:,}",
        name,
        f"{result.seconds:.2f} s",
        f"{result.seconds / ours:.2f}" if ours else "",
        f"{result.memory / MEGABYTE:,.0f} MB",
        f"{result.cpu:.1f} s",
        f"{result.size / MEGABYTE:,.1f} MB",
        "" if result.stall is None else f"{result.stall * 1000:.0f} ms",
        "" if result.found_rows is None else f"{result.found_rows:,}",
    )


def _figure(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if unit else f"{value:.2f}"


def _machine(services: Mapping[str, str]) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    servers = ", ".join(f"{name} {value}".strip() for name, value in services.items())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {servers}; {packages}."
    )


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
