"""The commands ``exporter schedule``: create and manage schedules over the API."""

import json
from typing import Annotated, Any
from uuid import UUID

import typer

from producers import arguments
from producers.arguments import Labels, Language, Locale, Name, Parameters, SplitBytes, SplitRows
from producers.console import exit_on_error
from producers.tokens import Token

cli = typer.Typer(
    help="Schedules: create, list, show, pause, resume, run, delete.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ScheduleId = Annotated[UUID, typer.Argument(metavar="SCHEDULE", help="Id of the schedule")]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="URL of the API. Default: EXPORTER_PUBLIC_URL")
]
AsUser = Annotated[
    str | None, typer.Option("--user-id", help="User of the schedule, if the token is signed here")
]

ROOT = "/exports/schedules"


@cli.command()
def create(
    export_type: Annotated[str, typer.Option(help="Name of the dataset, such as ledger")],
    file_format: Annotated[str, typer.Option("--format", help="Name of the file format, such as csv")],
    when: Annotated[
        str,
        typer.Option(
            "--schedule", "--every", help="daily, weekly, monthly, or a cron expression of five fields"
        ),
    ],
    name: Name = None,
    at: Annotated[
        str | None, typer.Option("--time-of-day", "--at", metavar="HH:MM", help="Time of day. Default: 00:00")
    ] = None,
    day: Annotated[
        int | None,
        typer.Option(help="weekly: 0 (Monday) to 6; monthly: 1 to 31, in shorter months the last day"),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="Time zone of the schedule and its windows, such as Europe/Berlin. Default: UTC"),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Rows of each run: none (default) for no window, previous_period or since_last_run"
        ),
    ] = None,
    delay: Annotated[
        int | None, typer.Option(min=0, help="Seconds that a run waits for rows that are written late")
    ] = None,
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
    parameters: Parameters = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="A,B,…", help="Columns, in this order. Default: all")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="own (default): the rows of the user; all: the rows of all users; or a scope of the dataset"
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Such as delimiter=; or header=false; repeatable"),
    ] = None,
    compression: Annotated[str | None, typer.Option(help="none (default), gzip or zstd")] = None,
    labels: Labels = False,
    language: Language = None,
    file_timezone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Time zone of the times in the files. Default: the dataset's, or UTC; it does not depend on "
            "--timezone",
        ),
    ] = None,
    locale: Locale = None,
    split_rows: SplitRows = None,
    split_bytes: SplitBytes = None,
    recipients: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient",
            metavar="ADDRESS",
            help="Mail address that gets a mail when the export ends; repeatable",
        ),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="URL that is called when the export ends")
    ] = None,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
) -> None:
    """Create a schedule; print its id and its next runs."""
    with exit_on_error():
        body = {
            "export_type": export_type,
            "format": file_format,
            "name": name,
            "schedule": when,
            "time_of_day": at,
            "day": day,
            "timezone": timezone,
            "window": window,
            "delay": delay,
            "catch_up": catch_up,
            "filters": arguments.parse_filters(filters or (), filters_json) or None,
            "parameters": arguments.parse_parameters(parameters or ()) or None,
            "columns": arguments.parse_columns(columns or ()),
            "options": arguments.parse_options(
                options or (),
                compression,
                labels=labels,
                language=language,
                timezone=file_timezone,
                locale=locale,
            )
            or None,
            "split": arguments.parse_split(split_rows, split_bytes),
            "scope": scope,
            "email_recipients": recipients or None,
            "webhook": webhook,
        }
        fields = {name: value for name, value in body.items() if value is not None}
        schedule = _call("POST", "", fields, user_id, token, api_url)
        typer.echo(schedule["id"])
        _show_next(schedule)


@cli.command("list")
def list_all(user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None) -> None:
    """Print all schedules, newest first, with their next run and their user."""
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
    """Print a schedule as JSON, with its next five and its last five runs."""
    with exit_on_error():
        schedule = _call("GET", f"/{schedule_id}", None, user_id, token, api_url)
        runs = _call("GET", f"/{schedule_id}/runs?limit=5", None, user_id, token, api_url)["runs"]
        typer.echo(json.dumps({**schedule, "last_runs": runs}, indent=2, ensure_ascii=False))


@cli.command()
def pause(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Pause a schedule: no more runs start."""
    with exit_on_error():
        _call("PATCH", f"/{schedule_id}", {"active": False}, user_id, token, api_url)
        typer.echo(f"Paused: {schedule_id}", err=True)


@cli.command()
def resume(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Resume a paused schedule, and print its next runs."""
    with exit_on_error():
        _show_next(_call("PATCH", f"/{schedule_id}", {"active": True}, user_id, token, api_url))


@cli.command()
def run(schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None) -> None:
    """Start a run now, and print the id of its job."""
    with exit_on_error():
        typer.echo(_call("POST", f"/{schedule_id}:run", None, user_id, token, api_url)["export_job_id"])


@cli.command()
def delete(
    schedule_id: ScheduleId, user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None
) -> None:
    """Delete a schedule. Its files are kept until they expire."""
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
    return f"{schedule['id']}  {what}  {when}  {state}  {schedule['user_id']}"


def _show_next(schedule: dict[str, Any]) -> None:
    typer.echo(f"Next runs ({schedule['timezone']}):", err=True)
    for moment in schedule["next_runs"]:
        typer.echo(f"  {moment}", err=True)
