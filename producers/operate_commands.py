"""Commands for operators: jobs, usage, why, pause, resume, pauses, cancel-all. They call the API."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

import typer

from producers import completion
from producers.console import AsJson, exit_on_error, note_json, print_json
from producers.tokens import Token

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="URL of the API. Default: EXPORTER_PUBLIC_URL")
]
JsonLines = Annotated[
    bool, typer.Option("--json", callback=note_json, help="Print one line of JSON for each")
]
TIMES = "a time, a date, today, or such as now-7d or 7d"
Since = Annotated[str | None, typer.Option(metavar="TIME", help=f"Requested since then: {TIMES}")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Requested before, or on this day")]
Source = Annotated[str | None, typer.Option("--source", help="Only the datasets of this source")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Only this dataset", autocompletion=completion.datasets)
]

PAGE = 100


@cli.command()
def jobs(
    status: Annotated[
        str | None, typer.Option(help="pending, processing, completed, failed, cancelled or expired")
    ] = None,
    dataset: Dataset = None,
    user_id: Annotated[str | None, typer.Option(help="Only jobs of this user")] = None,
    code: Annotated[str | None, typer.Option(help="Only jobs with this error code, such as timeout")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Limit: only the newest")] = 50,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List jobs, newest first: id, time, status, user, dataset, format, rows, error."""
    wanted = {"status": status, "export_type": dataset, "user_id": user_id, "code": code}
    wanted |= {"since": _relative(since), "until": _relative(until)}

    def run(call: Call) -> None:
        left, cursor = limit, ""
        while left > 0 and cursor is not None:
            query = {**wanted, "limit": min(PAGE, left), "cursor": cursor or None}
            page = call("GET", "/exports/jobs", query)
            for job in page["jobs"]:
                typer.echo(json.dumps(job, ensure_ascii=False) if as_json else _line(job))
            left, cursor = left - len(page["jobs"]), page["next_cursor"]
        if cursor:
            typer.echo(f"There are more than {limit} jobs (--limit)", err=True)

    _with_api(token, api_url, run)


@cli.command()
def usage(
    since: Since = "now-7d",
    until: Until = None,
    by: Annotated[str, typer.Option(help="user, dataset or both")] = "both",
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show who uses the service: jobs, rows and bytes by user and dataset."""

    def run(call: Call) -> None:
        query = {"since": _relative(since), "until": _relative(until), "by": by}
        report = call("GET", "/exports/usage", query)
        if as_json:
            typer.echo(json.dumps(report, ensure_ascii=False))
            return
        rows: list[Sequence[str]] = [("user", "dataset", "jobs", "failed", "rows", "bytes")]
        rows += [
            (item["user_id"] or "", item["export_type"] or "", *_numbers(item)) for item in report["items"]
        ]
        _table([*rows, ("total", "", *_numbers(report["total"]))], right=4)
        if report["groups"] > len(report["items"]):
            typer.echo(f"{report['groups'] - len(report['items'])} more are not shown", err=True)

    _with_api(token, api_url, run)


@cli.command()
def why(
    job_id: Annotated[
        UUID, typer.Argument(metavar="JOB", help="Id of the job", autocompletion=completion.jobs)
    ],
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a job waits, or what it does: place in the queue, worker, phase, seconds of its stages."""

    def run(call: Call) -> None:
        found = call("GET", f"/exports/jobs/{job_id}/why", {})
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False))
            return
        typer.echo(_plain(f"{found['status']}: {found['text']}"))
        slots = f"{found['slots_running']} of {found['slots']} in use, {found['workers']} workers"
        stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found["seconds"].items())
        error = found["error"] and f"{found['error']['message']} ({found['error']['code']})"
        facts = {
            "dataset": f"{found['export_type']} as {found['format']}",
            "user": f"{found['user_id']}, {found['user_running']} of {found['user_slots']} slots in use",
            "slots": slots,
            "place in the queue": found["place"],
            "waited": _seconds(found["queue_seconds"]),
            "worker": found["worker"],
            "phase": found["phase"],
            "ran": _seconds(found["run_seconds"]),
            "busy": stages,
            "rows": found["rows"],
            "attempts": f"{found['attempt']}, {found['failures']} of {found['max_attempts']} failed",
            "not before": found["not_before"],
            "last error": error,
        }
        for name, value in facts.items():
            if value not in (None, ""):
                typer.echo(_plain(f"  {name}: {value}"))

    _with_api(token, api_url, run)


@cli.command()
def pause(
    source: Source = None,
    dataset: Dataset = None,
    reason: Annotated[str | None, typer.Option(help="Shown to operators")] = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let workers claim no more jobs: of a source, of a dataset, or of everything. Running exports go on."""

    def run(call: Call) -> None:
        body = {"scope": _scope(source, dataset), "reason": reason}
        done = call("POST", "/exports/pauses", {}, body)
        typer.echo(json.dumps(done, ensure_ascii=False) if as_json else f"Paused: {done['scope']}")

    _with_api(token, api_url, run)


@cli.command()
def resume(
    source: Source = None,
    dataset: Dataset = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """End a pause of claims."""

    def run(call: Call) -> None:
        scope = _scope(source, dataset)
        call("DELETE", "/exports/pauses", {"scope": scope})
        if as_json:
            print_json({"scope": scope, "resumed": True})
        else:
            typer.echo(f"Resumed: {scope}", err=True)

    _with_api(token, api_url, run)


@cli.command()
def pauses(token: Token = None, api_url: ApiUrl = None, as_json: JsonLines = False) -> None:
    """List the pauses of claims."""

    def run(call: Call) -> None:
        found = call("GET", "/exports/pauses", {})["pauses"]
        for item in found:
            since = f"since {item['paused_at']} by {item['paused_by']}"
            line = "  ".join(filter(None, (item["scope"], since, item["reason"])))
            typer.echo(json.dumps(item, ensure_ascii=False) if as_json else _plain(line))
        if not found:
            typer.echo("Nothing is paused", err=True)

    _with_api(token, api_url, run)


@cli.command("cancel-all")
def cancel_all(
    user_id: Annotated[str, typer.Option(help="User whose unfinished jobs are cancelled")],
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Cancel all unfinished jobs of a user, and print their ids. Finished files stay."""

    def run(call: Call) -> None:
        done = call("POST", "/exports/jobs:cancel", {}, {"user_id": user_id})
        if as_json:
            typer.echo(json.dumps(done))
            return
        for job_id in done["export_job_ids"]:
            typer.echo(job_id)
        typer.echo(f"{len(done['export_job_ids'])} jobs cancelled", err=True)

    _with_api(token, api_url, run)


Call = Callable[..., dict[str, Any]]
"""Calls the API: method, path, parameters (``None`` is left out), and the body."""


def _with_api(token: str | None, api_url: str | None, run: Callable[[Call], None]) -> None:
    """Run ``run`` with a function that calls the API with a token of the role ``exports:operate``."""
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with (
        exit_on_error(),
        job_commands.open_api(load_settings(), api_url, token, None, role=job_commands.OPERATE) as api,
    ):

        def call(
            method: str, path: str, query: dict[str, Any], body: dict[str, Any] | None = None
        ) -> dict[str, Any]:
            given = {name: value for name, value in query.items() if value is not None}
            return api.call(method, path + ("?" + urlencode(given) if given else ""), body)

        run(call)


def _relative(value: str | None) -> str | None:
    """Return ``7d``, ``90m`` or ``2h`` as ``now-7d`` and so on; other values as they are."""
    if value is not None and value[:-1].isdecimal() and value[-1:] in ("m", "h", "d", "w"):
        return f"now-{value}"
    return value


def _scope(source: str | None, dataset: str | None) -> str:
    from streaming_exporter.errors import UsageError

    if source is not None and dataset is not None:
        raise UsageError("give --source or --dataset, not both; without them everything is meant")
    if source is not None:
        return f"source:{source}"
    return "everything" if dataset is None else f"dataset:{dataset}"


def _line(job: dict[str, Any]) -> str:
    rows = "-" if job["row_count"] is None else f"{job['row_count']:,}"
    code = f"  {job['error']['code']}" if job["error"] else ""
    created = job["created_at"][:19].replace("T", " ") + "Z"
    facts = (job["export_job_id"], created, job["status"].ljust(10), job["user_id"])
    return _plain("  ".join((*facts, job["export_type"], job["format"], f"{rows} rows")) + code)


def _numbers(item: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{item[name]:,}" for name in ("jobs", "failed", "rows", "bytes"))


def _table(rows: Sequence[Sequence[str]], *, right: int) -> None:
    """Print rows in columns; the last ``right`` columns are aligned to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    left = len(widths) - right
    for row in rows:
        cells = (
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        typer.echo(_plain("  ".join(cells).rstrip()))


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:,.2f} s"


def _plain(text: str) -> str:
    """Return text without control characters, because users have chosen their ids."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
