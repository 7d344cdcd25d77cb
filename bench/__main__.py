"""``python -m bench``: measures every format and its peers, and writes the results."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.contenders import Contender
from bench.data import WARM_UP_ROWS, Bench, short_rows_sql, started, table
from bench.kinds import Kind
from bench.measure import Outcome, measure
from bench.plan import Heat, heats
from bench.report import markdown
from bench.results import Result, Results
from bench.verify import count_rows
from dev.cache import ServiceError, UsageError
from dev.progress import console
from stream_app.exports.formats.registry import FORMATS

RESULTS = Path(__file__).with_name("RESULTS.md")
MOST_VERIFIED = 1_000_000


def main(
    rows: Annotated[str, typer.Option(help="Numbers of rows, separated by commas")] = "100000,1000000",
    only: Annotated[str, typer.Option(help="Formats, separated by commas; default: all")] = "",
    kind: Annotated[list[Kind] | None, typer.Option(help="Rows of this kind; default: all")] = None,
    quick: Annotated[
        bool, typer.Option(help="10,000 rows, one round: checks only that everything works")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="File for the report, in addition to the terminal")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder for the services' data")] = Path(".local/bench"),
) -> None:
    """Measure this project and its peers. A run of everything replaces bench/RESULTS.md."""
    formats = set(only.split(",")) if only else None
    if unknown := (formats or set()) - FORMATS.keys():
        raise typer.BadParameter(f"{', '.join(unknown)}: allowed: {', '.join(FORMATS)}", param_hint="--only")
    sizes = [10_000] if quick else [int(size) for size in rows.split(",")]
    plan = list(heats(sizes, formats, set(kind or Kind), quick=quick))
    short_rows = {heat.rows for heat in plan if heat.kind is Kind.SHORT}
    more_sql = "".join(short_rows_sql(table(size, Kind.SHORT), size) for size in short_rows)
    try:
        with started(
            folder, {heat.rows for heat in plan if heat.kind is Kind.LEDGER} or {WARM_UP_ROWS * 2}, more_sql
        ) as bench:
            results = Results(_run(plan, bench))
            report = markdown(results, bench.versions)
    except (ServiceError, UsageError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)
    console.print(Markdown(report))
    if output is None and not quick and formats is None and kind is None:
        output = RESULTS
    if output is not None:
        output.write_text(report, encoding="utf-8")
        console.print(f"written to {output}")


def _run(plan: list[Heat], bench: Bench) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Result] = []
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=sum(len(heat.contenders) * heat.rounds for heat in plan))
        done = 0
        for heat in plan:
            found: dict[str, int | None] = {}

            def one(contender: Contender, heat: Heat = heat, found: dict[str, int | None] = found) -> Outcome:
                progress.update(
                    bar,
                    description=f"{contender.format} {heat.rows:,} {heat.kind} {contender.name}",
                    advance=1,
                )
                outcome = _measure(contender, heat, bench)
                if outcome.key:
                    if contender.name not in found and heat.rows <= MOST_VERIFIED:
                        found[contender.name] = count_rows(bench.store, outcome.key, contender.format)
                    bench.remove(outcome.key)
                said = outcome.error or f"{outcome.seconds:.2f} s"
                progress.console.print(
                    f"{contender.format} {heat.rows:,} {heat.kind} {contender.name}: {said}"
                )
                return outcome

            heat_results = heat.run(one)
            for result in heat_results:
                result.found_rows = found.get(result.contender.name)
            results += heat_results
            done += len(heat.contenders) * heat.rounds
            progress.update(bar, completed=done)
    return results


def _measure(contender: Contender, heat: Heat, bench: Bench) -> Outcome:
    task = {
        "module": contender.module,
        "format": contender.format,
        "table": table(heat.rows, heat.kind),
        "warm_up": table(WARM_UP_ROWS),
        "key": f"bench/{contender.module}.{contender.format}",
    }
    return measure(task, bench.environment, heat.budget)


if __name__ == "__main__":
    typer.run(main)
