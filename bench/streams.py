"""``python -m bench.streams``: one export over several connections, also across a slow network."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from bench.data import WARM_UP_ROWS, Bench, short_rows_sql, started, table
from bench.measure import Outcome, measure
from bench.throttle import throttled
from dev.progress import console

MEGABYTE = 2**20
LIMIT = 3.5
"""How many times as fast four streams must be as one, across the network."""

SHORT = "bench.short"


def main(
    rows: Annotated[int, typer.Option(help="Number of rows")] = 1_000_000,
    rate: Annotated[int, typer.Option(help="MB a second of each connection through the proxy")] = 20,
    streams: Annotated[str, typer.Option(help="Numbers of streams, separated by commas")] = "1,2,4",
    formats: Annotated[str, typer.Option(help="Formats, separated by commas")] = "csv,json,parquet",
    rounds: Annotated[int, typer.Option(help="How often each is measured; the fastest counts")] = 3,
    folder: Annotated[Path, typer.Option(help="Folder for the services' data")] = Path(
        ".local/bench-streams"
    ),
) -> None:
    """Measure exports of the ledger and of a table of ten short columns by the number of streams."""
    numbers = [int(number) for number in streams.split(",")]
    lines = [
        "| source | table | format | streams | seconds | times as fast | CPU | memory |",
        "|" + "---|" * 8,
    ]
    shares = {}
    with started(folder, [rows], short_rows_sql(SHORT, rows)) as bench:
        for near in (True, False):
            with _source(bench, None if near else rate * MEGABYTE) as (source, url):
                for name in (table(rows), SHORT):
                    for output in formats.split(",") if near else ["csv"]:
                        found: dict[int, Outcome] = {}
                        for _ in range(rounds if near else 1):
                            for number in numbers:
                                one = _measure(bench, url, name, output, number)
                                if number not in found or one.seconds < found[number].seconds:
                                    found[number] = one
                        for number, one in found.items():
                            faster = found[numbers[0]].seconds / max(one.seconds, 0.001)
                            shares[near, name, output, number] = faster
                            seconds = one.error or f"{one.seconds:.2f}"
                            lines.append(
                                f"| {source} | {name} | {output} | {number} | {seconds} | {faster:.2f}"
                                f" | {one.cpu:.2f} | {one.memory / MEGABYTE:.0f} MB |"
                            )
                            console.print(lines[-1])
    console.print(Markdown("\n".join(lines)))
    console.print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    reached = shares.get((False, table(rows), "csv", 4), LIMIT)
    console.print(f"four streams across the network: {reached:.2f} times as fast (required: {LIMIT})")
    if reached < LIMIT:
        raise typer.Exit(1)


@contextmanager
def _source(bench: Bench, rate: int | None) -> Iterator[tuple[str, str]]:
    url = bench.environment["EXPORTER_SOURCE_DATABASE_URL"]
    if rate is None:
        yield "near", url
    else:
        with throttled(url, rate) as slow:
            yield f"{rate // MEGABYTE} MB/s", slow


def _measure(bench: Bench, url: str, name: str, output: str, streams: int) -> Outcome:
    task = {
        "module": "ours",
        "format": output,
        "table": name,
        "warm_up": table(WARM_UP_ROWS),
        "key": f"bench/streams.{output}",
    }
    environment = {
        **bench.environment,
        "EXPORTER_SOURCE_DATABASE_URL": url,
        "EXPORTER_SOURCE_STREAMS": str(streams),
        "EXPORTER_PARALLEL_MIN_BYTES": "1000000",
    }
    outcome = measure(task, environment, 600)
    if outcome.key:
        bench.remove(outcome.key)
    return outcome


if __name__ == "__main__":
    typer.run(main)
