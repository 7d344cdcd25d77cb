"""``python -m bench.scale``: measures more workers, longer backlogs and larger tables."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from bench.jobs.system import ROWS, system
from bench.scale.claims import Plan, latencies
from bench.scale.report import Report
from bench.scale.workers import admission, throughput
from dev.progress import console
from stream_app.settings import Settings

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(
    workers: Annotated[str, typer.Option(help="Numbers of workers, separated by commas")] = "1,2,4",
    count: Annotated[int, typer.Option(help="Jobs of the backlog whose throughput is measured")] = 2_000,
    slots: Annotated[int, typer.Option(help="Exports at a time in a worker, and jobs of a claim")] = 4,
    requests: Annotated[int, typer.Option(help="Requests of the backlog that is admitted")] = 10_000,
    finished: Annotated[
        str, typer.Option(help="Numbers of finished jobs with which claims are measured, separated by commas")
    ] = "0,1000000",
    users: Annotated[
        str, typer.Option(help="Numbers of users whose jobs wait, separated by commas")
    ] = "100,5000",
    pending: Annotated[int, typer.Option(help="Jobs that wait while claims are measured")] = 10_000,
    claims: Annotated[int, typer.Option(help="Claims in each of three rounds")] = 500,
    claimers: Annotated[int, typer.Option(help="Number of workers that compete for claims")] = 8,
    output: Annotated[Path, typer.Option(help="File for the report, in addition to the terminal")] = RESULTS,
) -> None:
    """Measure on real services on this machine. No other program should run there at the same time."""
    plan = Plan(
        finished=_numbers(finished),
        users=_numbers(users),
        pending=pending,
        claims=claims,
        claimers=claimers,
        slots=slots,
    )
    with system(slots) as stack:
        settings = Settings()
        rounds = [throughput(stack, settings, number, count) for number in _numbers(workers)]
        admitted = admission(stack, settings, requests)
        found = asyncio.run(latencies(stack.postgres, settings, plan))
    report = Report(ROWS, slots, rounds, admitted, plan, found).markdown()
    console.print(Markdown(report))
    output.write_text(report, encoding="utf-8")
    console.print(f"written to {output}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    typer.run(main)
