"""The commands ``exporter schedule``: create and manage schedules over the API."""

import json
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import typer

from producers import schedule_options as options
from producers.console import AsJson, exit_on_error, print_json
from producers.option_groups import grouped
from producers.request_options import ContentOptions, NotificationOptions
from producers.tokens import Token
from streaming_exporter.errors import UsageError

cli = typer.Typer(
    help="Schedules: exports that are repeated.",
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
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Api:
    """The options of all commands: how the API is called, and how its answer is printed."""

    user_id: AsUser = None
    token: Token = None
    api_url: ApiUrl = None
    as_json: AsJson = False


@cli.command()
@grouped
def create(
    basics: options.CreateOptions,
    calendar: options.CalendarOptions,
    content: ContentOptions,
    notifications: NotificationOptions,
    api: Api,
) -> None:
    """Create a schedule; print its id and its next runs."""
    with exit_on_error():
        schedule = _call("POST", "", options.body_of(basics, calendar, content, notifications), api)
        if not api.as_json:
            typer.echo(schedule["id"])
        _show_next(schedule, as_json=api.as_json)


@cli.command()
@grouped
def edit(
    schedule_id: ScheduleId,
    basics: options.ChangeOptions,
    calendar: options.CalendarOptions,
    content: ContentOptions,
    notifications: NotificationOptions,
    clear: options.ClearOptions,
    api: Api,
) -> None:
    """Change a schedule; print its next runs.

    What is not given stays. Filters, parameters, options and recipients that are given replace all of their
    kind.
    """
    with exit_on_error():
        body = options.body_of(basics, calendar, content, notifications) | clear.fields()
        if not body:
            raise UsageError("nothing to change: give at least one option, such as --name or --at")
        _show_next(_call("PATCH", f"/{schedule_id}", body, api), as_json=api.as_json)


@cli.command()
@grouped
def duplicate(
    schedule_id: ScheduleId,
    basics: options.ChangeOptions,
    calendar: options.CalendarOptions,
    content: ContentOptions,
    notifications: NotificationOptions,
    clear: options.ClearOptions,
    api: Api,
) -> None:
    """Create a schedule like another one; print its id.

    Options that are given replace its values.
    The new schedule belongs to the user of the token. A token that is signed here is that of the user of the
    other schedule.
    """
    with exit_on_error():
        known = _call("GET", f"/{schedule_id}", None, api)
        body = options.copy_of(
            known, options.body_of(basics, calendar, content, notifications) | clear.fields()
        )
        schedule = _call("POST", "", body, api, user_id=known["user_id"])
        if not api.as_json:
            typer.echo(schedule["id"])
        _show_next(schedule, as_json=api.as_json)


@cli.command("list")
@grouped
def list_all(api: Api) -> None:
    """Print all schedules, newest first, with their next run.

    Those of a user; with the role exports:admin those of all users.
    """
    with exit_on_error():
        cursor: str | None = ""
        while cursor is not None:
            suffix = f"?limit=100{cursor and f'&cursor={cursor}'}"
            page = _call("GET", suffix, None, api)
            for schedule in page["schedules"]:
                if api.as_json:
                    print_json(schedule)
                else:
                    typer.echo(_line(schedule))
            if not page["schedules"] and not cursor:
                typer.echo(
                    "This user has no schedules. `exporter overview` shows those of all users that failed",
                    err=True,
                )
            cursor = page["next_cursor"]


@cli.command()
@grouped
def show(
    schedule_id: ScheduleId,
    api: Api,
) -> None:
    """Print a schedule as JSON, with its next and last runs.

    Five of each. With `--json` it is one line.
    """
    with exit_on_error():
        schedule = _call("GET", f"/{schedule_id}", None, api)
        runs = _call("GET", f"/{schedule_id}/runs?limit=5", None, api)["runs"]
        document = {**schedule, "last_runs": runs}
        typer.echo(json.dumps(document, indent=None if api.as_json else 2, ensure_ascii=False))


@cli.command()
@grouped
def runs(
    schedule_id: ScheduleId,
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many")] = 20,
    api: Api,
) -> None:
    """Print the last runs of a schedule, newest first.

    When each was due, its job, status, rows and file.
    `exporter download JOB` downloads the file of a run.
    """
    with exit_on_error():
        path = f"/{schedule_id}/runs?limit={limit}"
        for one in _call("GET", path, None, api)["runs"]:
            if api.as_json:
                print_json(one)
            else:
                typer.echo(_run_line(one))


@cli.command()
@grouped
def pause(
    schedule_id: ScheduleId,
    api: Api,
) -> None:
    """Pause a schedule: no more runs start."""
    with exit_on_error():
        schedule = _call("PATCH", f"/{schedule_id}", {"active": False}, api)
        if api.as_json:
            print_json(schedule)
        else:
            typer.echo(f"Paused: {schedule_id}", err=True)


@cli.command()
@grouped
def resume(
    schedule_id: ScheduleId,
    api: Api,
) -> None:
    """Resume a paused schedule, and print its next runs."""
    with exit_on_error():
        _show_next(_call("PATCH", f"/{schedule_id}", {"active": True}, api), as_json=api.as_json)


@cli.command()
@grouped
def run(
    schedule_id: ScheduleId,
    api: Api,
) -> None:
    """Start a run now, and print the id of its job."""
    with exit_on_error():
        accepted = _call("POST", f"/{schedule_id}:run", None, api)
        if api.as_json:
            print_json(accepted)
        else:
            typer.echo(accepted["export_job_id"])


@cli.command()
@grouped
def delete(
    schedule_id: ScheduleId,
    api: Api,
) -> None:
    """Delete a schedule. Its files are kept until they expire."""
    with exit_on_error():
        _call("DELETE", f"/{schedule_id}", None, api)
        if api.as_json:
            print_json({"id": schedule_id, "deleted": True})
        else:
            typer.echo(f"Deleted: {schedule_id}", err=True)


def _call(
    method: str, path: str, body: dict[str, Any] | None, api: Api, *, user_id: str | None = None
) -> dict[str, Any]:
    """Call the API. ``user_id`` is the user of a token that is signed here, if no option names one."""
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    user_id = api.user_id or user_id
    settings = load_settings()
    job_commands.warn_of_unused_user(settings, api.token, user_id)
    with job_commands.open_api(settings, api.api_url, api.token, user_id) as opened:
        return opened.call(method, ROOT + path, body)


def _line(schedule: dict[str, Any]) -> str:
    what = f"{schedule['export_type']} {schedule['format']}"
    when = " ".join(
        filter(None, (schedule["schedule"], _day(schedule), schedule["time_of_day"], schedule["timezone"]))
    )
    state = schedule["next_runs"][0] if schedule["next_runs"] else schedule["paused_reason"] or "paused"
    facts = [schedule["id"], what, when, state, schedule["user_id"], schedule.get("name")]
    return "  ".join(filter(None, facts))


def _day(schedule: dict[str, Any]) -> str | None:
    day = schedule.get("day")
    if day is None:
        return None
    return WEEKDAYS[day] if schedule["schedule"] == "weekly" else f"day {day}"


def _run_line(one: dict[str, Any]) -> str:
    status = one["status"] if one["error"] is None else f"{one['status']}: {one['error']['message']}"
    rows = None if one["row_count"] is None else f"{one['row_count']:,} rows"
    return "  ".join(filter(None, (one["run_at"], one["export_job_id"], status, rows, one.get("file_name"))))


def _show_next(schedule: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(schedule)
        return
    typer.echo(f"Next runs ({schedule['timezone']}):", err=True)
    for moment in schedule["next_runs"]:
        typer.echo(f"  {moment}", err=True)
