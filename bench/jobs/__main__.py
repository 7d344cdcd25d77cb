"""``python -m bench.jobs``: measures latency and throughput of small exports, and of Celery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import typer
import uvloop
from rich.markdown import Markdown

from bench.jobs import ours, peer
from bench.jobs.system import ROWS, system
from bench.spent import PARTS, cores, measuring
from dev.progress import console
from stream_app.settings import Settings

RESULTS = Path(__file__).with_name("RESULTS.md")

WARM_UP = 100
"""Jobs before the measurement, so that everything is loaded and every partition is read."""


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
        uvloop.run(ours.backlog(settings, count=WARM_UP))
        stages = uvloop.run(ours.latencies(settings, rate=rate, count=times))
        with measuring(stack) as spent:
            jobs = uvloop.run(ours.backlog(settings, count=count))
        found = [Result("ours", stages["completed"], jobs, spent.per_job(count))]
        worker.stop()
        with peer.worker(slots):
            latencies = peer.latencies(rate=rate, count=times)
            with measuring(stack) as spent:
                jobs = peer.backlog(count=count)
            cost = spent.per_job(count)
            # Celery's worker is in this process.
            cost |= {"workers": cost["bench"], "bench": 0.0}
            found.append(Result("Celery", latencies, jobs, cost))
    report = _report(found, stages, rate, count, slots)
    console.print(Markdown(report))
    output.write_text(report, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds of jobs at a steady rate; jobs a second and processor seconds of a job of a backlog."""

    name: str
    latencies: Sequence[float]
    rate: float
    cost: Mapping[str, float]


def _report(
    found: Sequence[Result], stages: Mapping[str, Sequence[float]], rate: float, count: int, slots: int
) -> str:
    lines = [
        "# Small exports",
        "",
        f"Made by `python -m bench.jobs`: {ROWS:,} rows as CSV, one worker with {slots} exports at a time, on"
        f" {cores()} cores that Kafka, PostgreSQL and S3 share. Latency at {rate:g} requests a second,"
        " from publishing the request to reading that it is completed (Celery, whose broker is a queue in"
        f" memory: from sending the task to the end of its function). Throughput: {count:,} jobs at once.",
        "",
        "| who | p50 | p95 | p99 | longest | jobs a second |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {one.name} | {_times(one.latencies)} | {one.rate:.0f} |" for one in found),
        "",
        "From publishing the request to reading each event of its job:",
        "",
        "| event | p50 | p95 | p99 | longest |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {stage} | {_times(seconds)} |" for stage, seconds in stages.items()),
        "",
        "Processor time of one job of the backlog. bench is the process that publishes requests and reads"
        " events; Celery's threads are in that process, and count as its worker.",
        "",
        f"| who | all parts | {' | '.join(PARTS)} |",
        f"| --- | --- |{' --- |' * len(PARTS)}",
        *(f"| {one.name} | {_costs(one.cost)} |" for one in found),
    ]
    return "\n".join(lines) + "\n"


def _times(seconds: Sequence[float]) -> str:
    at = quantiles(seconds, n=100, method="inclusive")
    return " | ".join(f"{1000 * value:.0f} ms" for value in (at[49], at[94], at[98], max(seconds)))


def _costs(cost: Mapping[str, float]) -> str:
    return " | ".join(f"{1000 * seconds:.1f} ms" for seconds in (sum(cost.values()), *cost.values()))


if __name__ == "__main__":
    typer.run(main)
