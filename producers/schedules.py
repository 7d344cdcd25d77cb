"""``exporter schedule``: exports on a calendar."""

import json
from typing import Annotated, Any
from uuid import UUID

import typer

from producers import arguments
from producers.console import exit_on_error
from producers.tokens import Token

cli = typer.Typer(
    help="Exports on a calendar: create, list, show, pause, resume, run, delete.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ScheduleId = Annotated[UUID, typer.Argument(metavar="SCHEDULE", help="The schedule's id")]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="The API; default EXPORTER_PUBLIC_URL")
]
AsUser = Annotated[str | None, typer.Option("--user-id", help="Whose it is, where the token is made here")]

ROOT = "/exports/schedules"


@cli.command()
def create(
    export_type: Annotated[str, typer.Option(help="The dataset, such as ledger")],
    file_format: Annotated[str, typer.Option("--format", help="The file format, such as csv")],
    when: Annotated[
        str, typer.Option("--schedule", "--every", help="daily, weekly, monthly, or a cron expression")
    ],
    at: Annotated[
        str | None, typer.Option("--time-of-day", "--at", metavar="HH:MM", help="Default 00:00")
    ] = None,
    day: Annotated[
        int | None, typer.Option(help="weekly: 0 (Monday) to 6; monthly: 1 to 31, 31 is the last")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Such as Europe/Berlin; default UTC")] = None,
    window: Annotated[
        str | None, typer.Option(help="none (default), previous_period or since_last_run")
    ] = None,
    delay: Annotated[int | None, typer.Option(min=0, help="Seconds to wait for late rows")] = None,
    catch_up: Annotated[
        str | None, typer.Option(help="Runs missed in an outage: last (default), all or none")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="COLUMN[:OP]=VALUE", help="created_at:gte=now-7d, kind=proof …; repeatable"
        ),
    ] = None,
    filters_json: Annotated[
        str | None, typer.Option("--filters", metavar="JSON", help='Such as {"id": {"gte": 5, "lt": 9}}')
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="A,B,…", help="Columns in their order; default all")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="own (default): the user's rows; all: every row")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Such as delimiter=; or header=false; repeatable"),
    ] = None,
    compression: Annotated[str | None, typer.Option(help="none (default), gzip or zstd")] = None,
    recipients: Annotated[
        list[str] | None, typer.Option("--recipient", metavar="ADDRESS", help="Who gets a mail; repeatable")
    ] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Who else is told")] = None,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
) -> None:
    """Make a schedule; prints its id, and when it runs next."""
    with exit_on_error():
        body = {
            "export_type": export_type,
            "format": file_format,
            "schedule": when,
            "time_of_day": at,
            "day": day,
            "timezone": timezone,
            "window": window,
            "delay": delay,
            "catch_up": catch_up,
            "filters": arguments.parse_filters(filters or (), filters_json) or None,
            "columns": arguments.parse_columns(columns or ()),
            "options": arguments.parse_options(options or (), compression) or None,
            "scope": scope,
            "email_recipients": recipients or None,
            "webhook": webhook,
        }
        said = {name: value for name, value in body.items() if value is not None}
        schedule = _call("POST", "", said, user_id, token, api_url)
        typer.echo(schedule["id"])
        _show_next(schedule)


@cli.command("list")
def list_all(user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None) -> None:
    """Print every schedule, newest first, and when it runs next."""
    with exit_on_error():
        cursor: str | None = ""
        while cursor is not None:
            suffix = f"?limit=100{cursor and f'&cursor={cursor}'}"
            page = _call("GET", suffix, None, user_id, token, api_url)
            for schedule in page["schedules"]:
                typer.echo(_line(schedule))
            cursor = page["next_cursor"]


@cli.command()
def show(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Print a schedule with its next five runs and its last ones, as JSON."""
    with exit_on_error():
        schedule = _call("GET", f"/{schedule_id}", None, user_id, token, api_url)
        runs = _call("GET", f"/{schedule_id}/runs?limit=5", None, user_id, token, api_url)["runs"]
        typer.echo(json.dumps({**schedule, "last_runs": runs}, indent=2, ensure_ascii=False))


@cli.command()
def pause(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Let no more runs start."""
    with exit_on_error():
        _call("PATCH", f"/{schedule_id}", {"active": False}, user_id, token, api_url)
        typer.echo(f"Paused: {schedule_id}", err=True)


@cli.command()
def resume(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Let runs start again, from the next one on."""
    with exit_on_error():
        _show_next(_call("PATCH", f"/{schedule_id}", {"active": True}, user_id, token, api_url))


@cli.command()
def run(schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None) -> None:
    """Start a run now; prints its job's id."""
    with exit_on_error():
        typer.echo(_call("POST", f"/{schedule_id}:run", None, user_id, token, api_url)["export_job_id"])


@cli.command()
def delete(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Remove a schedule; its files stay for their time."""
    with exit_on_error():
        _call("DELETE", f"/{schedule_id}", None, user_id, token, api_url)
        typer.echo(f"Deleted: {schedule_id}", err=True)


def _call(
    method: str,
    path: str,
    body: dict[str, Any] | None,
    user_id: str | None,
    token: str | None,
    api_url: str | None,
) -> dict[str, Any]:
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with job_commands.open_api(load_settings(), api_url, token, user_id) as api:
        return api.call(method, ROOT + path, body)


def _line(schedule: dict[str, Any]) -> str:
    what = f"{schedule['export_type']} {schedule['format']}"
    when = " ".join(filter(None, (schedule["schedule"], schedule["time_of_day"], schedule["timezone"])))
    state = schedule["next_runs"][0] if schedule["next_runs"] else schedule["paused_reason"] or "paused"
    return f"{schedule['id']}  {what}  {when}  {state}"


def _show_next(schedule: dict[str, Any]) -> None:
    typer.echo(f"Next runs ({schedule['timezone']}):", err=True)
    for moment in schedule["next_runs"]:
        typer.echo(f"  {moment}", err=True)
