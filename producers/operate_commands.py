"""Commands for operators, which call the API: overview, jobs, usage, why, pauses, cancel-all."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

import typer

from producers import completion
from producers.console import AsJson, JsonLines, exit_on_error, print_json
from producers.option_groups import grouped
from producers.overview import print_overview
from producers.tables import duration, plain, print_table, table, utc_time
from producers.tokens import Token
from streaming_exporter.errors import UsageError

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="URL of the API. Default: EXPORTER_PUBLIC_URL")
]
TIMES = "a time, a date, today, or such as now-7d or 7d"
Since = Annotated[str | None, typer.Option(metavar="TIME", help=f"Requested since then: {TIMES}")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Requested before, or on this day")]
Source = Annotated[str | None, typer.Option("--source", help="Only the datasets of this source")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Only this dataset", autocompletion=completion.datasets)
]
OfUser = Annotated[str | None, typer.Option("--user-id", help="Only jobs of this user")]

PAGE = 100


class Grouping(StrEnum):
    """What usage is grouped by."""

    USER = "user"
    DATASET = "dataset"
    BOTH = "both"


@cli.command()
def overview(token: Token = None, api_url: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show the state of the service: what runs, waits and failed.

    Workers, queue, running jobs and who holds them, pauses, schedules and deliveries that failed,
    and what a restart of a worker costs at the moment.
    """

    def run(call: Call) -> None:
        found = call("GET", "/exports/operations", {})
        if as_json:
            print_json(found)
        else:
            print_overview(found)

    _with_api(token, api_url, run)


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
    """List jobs, newest first, with the codes of their errors. `exporter why JOB` explains one."""
    wanted = {"status": status, "export_type": dataset, "user_id": user_id, "code": code}
    wanted |= {"since": _relative(since), "until": _relative(until)}

    def run(call: Call) -> None:
        left, cursor = limit, ""
        while left > 0 and cursor is not None:
            query = {**wanted, "limit": min(PAGE, left), "cursor": cursor or None}
            page = call("GET", "/exports/jobs", query)
            if as_json:
                for job in page["jobs"]:
                    print_json(job)
            elif page["jobs"]:
                headed = left == limit
                print_table([JOB_COLUMNS, *map(_cells, page["jobs"])], right=(6,), headed=headed)
            elif left == limit:
                typer.echo("No job matches", err=True)
            left, cursor = left - len(page["jobs"]), page["next_cursor"]
        if cursor:
            typer.echo(f"There are more than {limit} jobs (--limit)", err=True)

    _with_api(token, api_url, run)


@cli.command()
def usage(
    since: Since = "now-7d",
    until: Until = None,
    by: Annotated[Grouping, typer.Option(help="user, dataset or both")] = Grouping.BOTH,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show jobs, rows and bytes by user and dataset."""

    def run(call: Call) -> None:
        query = {"since": _relative(since), "until": _relative(until), "by": by.value}
        report = call("GET", "/exports/usage", query)
        if as_json:
            typer.echo(json.dumps(report, ensure_ascii=False))
            return
        rows: list[Sequence[str]] = [("user", "dataset", "jobs", "failed", "rows", "bytes")]
        rows += [
            (item["user_id"] or "", item["export_type"] or "", *_numbers(item)) for item in report["items"]
        ]
        for line in table([*rows, ("total", "", *_numbers(report["total"]))], right=(2, 3, 4, 5)):
            typer.echo(line)
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
    """Explain why a job waits, or what it does.

    Its place in the queue, its worker, its phase, the seconds of its stages, and what its error means.
    """

    def run(call: Call) -> None:
        found = call("GET", f"/exports/jobs/{job_id}/why", {})
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False))
            return
        typer.echo(plain(f"{found['status']}: {found['text']}"))
        waits = found["status"] == "pending"
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found["seconds"].items())
        error = found["error"] and f"{found['error']['code']}: {found['error']['message']}"
        failures = (
            f", {found['failures']} of at most {found['max_attempts']} failed" if found["failures"] else ""
        )
        facts = {
            "error": error,
            "dataset": f"{found['export_type']} as {found['format']}",
            "user": found["user_id"],
            "schedule": found["schedule_id"],
            "slots of the user": waits and f"{found['user_running']} of {found['user_slots']} in use",
            "slots": waits
            and f"{found['slots_running']} of {found['slots']} in use, {found['workers']} workers",
            "place in the queue": found["place"],
            "waited": _seconds(found["queue_seconds"]),
            "worker": found["worker"],
            "phase": found["phase"],
            "ran": _seconds(found["run_seconds"]),
            "busy": stages,
            "rows": found["rows"] and f"{found['rows']:,}",
            "attempts": found["attempt"] and f"{found['attempt']}{failures}",
            "not before": found["not_before"],
        }
        for name, value in facts.items():
            if value:
                typer.echo(plain(f"  {name}: {value}"))

    _with_api(token, api_url, run)


@dataclass(frozen=True, slots=True)
class Paused:
    """The options that say what a pause is about."""

    source: Source = None
    dataset: Dataset = None
    user_id: OfUser = None

    def scope(self) -> str:
        """Return the scope as the API has it.

        Raises:
            UsageError: several options are given.
        """
        named = {"source": self.source, "dataset": self.dataset, "user": self.user_id}
        scopes = [f"{kind}:{name}" for kind, name in named.items() if name is not None]
        if len(scopes) > 1:
            raise UsageError(
                "give one of --source, --dataset and --user-id; without them everything is meant"
            )
        return scopes[0] if scopes else "everything"


@cli.command()
@grouped
def pause(
    paused: Paused,
    reason: Annotated[str | None, typer.Option(help="Shown to operators")] = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let workers claim no more jobs. Running exports go on.

    Of a source, of a dataset, of a user, or of everything.
    Requests are still accepted, and their jobs wait until `exporter resume`.
    """

    def run(call: Call) -> None:
        body = {"scope": paused.scope(), "reason": reason}
        done = call("POST", "/exports/pauses", {}, body)
        typer.echo(json.dumps(done, ensure_ascii=False) if as_json else f"Paused: {done['scope']}")

    _with_api(token, api_url, run)


@cli.command()
@grouped
def resume(
    paused: Paused,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """End a pause of claims."""

    def run(call: Call) -> None:
        scope = paused.scope()
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
            typer.echo(json.dumps(item, ensure_ascii=False) if as_json else plain(line))
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


JOB_COLUMNS = ("job", "requested", "status", "user", "dataset", "format", "rows", "error")


def _cells(job: dict[str, Any]) -> tuple[str, ...]:
    rows = "-" if job["row_count"] is None else f"{job['row_count']:,}"
    code = job["error"]["code"] if job["error"] else ""
    what = (job["status"], job["user_id"], job["export_type"], job["format"])
    return (job["export_job_id"], utc_time(job["created_at"]), *what, rows, code)


def _numbers(item: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{item[name]:,}" for name in ("jobs", "failed", "rows", "bytes"))


def _seconds(value: float | None) -> str | None:
    return None if value is None else duration(value)
