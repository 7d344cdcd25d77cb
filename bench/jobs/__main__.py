"""``python -m bench.jobs``: measures latency and throughput of small exports, and of Celery."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import typer
from rich.markdown import Markdown

from bench.jobs import ours, peer
from bench.jobs.system import ROWS, system
from dev.progress import console
from stream_app.settings import Settings

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(
    rate: Annotated[float, typer.Option(help="Requests a second while latency is measured")] = 20,
    seconds: Annotated[float, typer.Option(help="Seconds for which latency is measured")] = 30,
    count: Annotated[int, typer.Option(help="Jobs of the backlog whose throughput is measured")] = 1_000,
    slots: Annotated[int, typer.Option(help="Exports at a time, or threads of Celery's pool")] = 4,
    output: Annotated[Path, typer.Option(help="File for the report, in addition to the terminal")] = RESULTS,
) -> None:
    """Measure small CSV exports through Kafka, PostgreSQL and S3, which all run on this machine."""
    with system(slots) as stack:
        settings = Settings()
        times = round(rate * seconds)
        worker = stack.start_worker()
        asyncio.run(ours.backlog(settings, count=50))  # everything is loaded
        found = [("ours", asyncio.run(ours.latencies(settings, rate=rate, count=times)))]
        throughput = [asyncio.run(ours.backlog(settings, count=count))]
        worker.stop()
        with peer.worker(slots):
            found.append(("Celery", peer.latencies(rate=rate, count=times)))
            throughput.append(peer.backlog(count=count))
    report = _report(found, throughput, rate, count, slots)
    console.print(Markdown(report))
    output.write_text(report, encoding="utf-8")


def _report(
    found: Sequence[tuple[str, Sequence[float]]],
    throughput: Sequence[float],
    rate: float,
    count: int,
    slots: int,
) -> str:
    lines = [
        "# Small exports",
        "",
        f"Made by `python -m bench.jobs`: {ROWS:,} rows as CSV, one worker with {slots} exports at a time, on"
        f" {os.cpu_count()} cores that Kafka, PostgreSQL and S3 share. Latency at {rate:g} requests a second,"
        " from publishing the request to reading that it is completed (Celery, whose broker is a queue in"
        f" memory: from sending the task to the end of its function). Throughput: {count:,} jobs at once.",
        "",
        "| who | p50 | p95 | p99 | longest | jobs a second |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, seconds), jobs in zip(found, throughput, strict=True):
        at = quantiles(seconds, n=100)
        times = [f"{1000 * value:.0f} ms" for value in (at[49], at[94], at[98], max(seconds))]
        lines.append(f"| {name} | {' | '.join(times)} | {jobs:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
