"""The commands ``exporter schedule``: create and manage schedules over the API."""

import json
from typing import Annotated, Any
from uuid import UUID

import typer

from producers import schedule_options as options
from producers.arguments import (
    Destination,
    EncryptFor,
    Labels,
    Language,
    Locale,
    Name,
    Parameters,
    SplitBytes,
    SplitRows,
    ZipPassword,
)
from producers.console import AsJson, exit_on_error, print_json
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


@cli.command()
def create(
    export_type: options.ExportType,
    file_format: options.Format,
    when: options.When,
    name: Name = None,
    at: options.TimeOfDay = None,
    day: options.Day = None,
    timezone: options.Timezone = None,
    window: options.Window = None,
    delay: options.Delay = None,
    catch_up: options.CatchUp = None,
    filters: options.Filters = None,
    filters_json: options.FiltersJson = None,
    parameters: Parameters = None,
    columns: options.Columns = None,
    scope: options.Scope = None,
    format_options: options.Options = None,
    compression: options.Compression = None,
    labels: Labels = False,
    language: Language = None,
    file_timezone: options.FileTimezone = None,
    locale: Locale = None,
    split_rows: SplitRows = None,
    split_bytes: SplitBytes = None,
    encrypt_for: EncryptFor = None,
    zip_password: ZipPassword = False,
    recipients: options.Recipients = None,
    webhook: options.Webhook = None,
    destination: Destination = None,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create a schedule; print its id and its next runs."""
    given = dict(locals())
    with exit_on_error():
        schedule = _call("POST", "", options.body_of(given), user_id, token, api_url)
        if not as_json:
            typer.echo(schedule["id"])
        _show_next(schedule, as_json=as_json)


@cli.command()
def edit(
    schedule_id: ScheduleId,
    file_format: options.NewFormat = None,
    when: options.NewWhen = None,
    name: Name = None,
    at: options.TimeOfDay = None,
    day: options.Day = None,
    timezone: options.Timezone = None,
    window: options.Window = None,
    delay: options.Delay = None,
    catch_up: options.CatchUp = None,
    filters: options.Filters = None,
    filters_json: options.FiltersJson = None,
    parameters: Parameters = None,
    columns: options.Columns = None,
    scope: options.Scope = None,
    format_options: options.Options = None,
    compression: options.Compression = None,
    labels: Labels = False,
    language: Language = None,
    file_timezone: options.FileTimezone = None,
    locale: Locale = None,
    split_rows: SplitRows = None,
    split_bytes: SplitBytes = None,
    encrypt_for: EncryptFor = None,
    zip_password: ZipPassword = False,
    recipients: options.Recipients = None,
    webhook: options.Webhook = None,
    destination: Destination = None,
    clear: options.Clear = None,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change a schedule; print its next runs.

    What is not given stays. Filters, parameters, options and recipients that are given replace all of their
    kind.
    """
    given = dict(locals())
    with exit_on_error():
        body = options.body_of(given) | options.cleared(clear or ())
        if not body:
            raise UsageError("nothing to change: give at least one option, such as --name or --at")
        _show_next(_call("PATCH", f"/{schedule_id}", body, user_id, token, api_url), as_json=as_json)


@cli.command()
def duplicate(
    schedule_id: ScheduleId,
    file_format: options.NewFormat = None,
    when: options.NewWhen = None,
    name: Name = None,
    at: options.TimeOfDay = None,
    day: options.Day = None,
    timezone: options.Timezone = None,
    window: options.Window = None,
    delay: options.Delay = None,
    catch_up: options.CatchUp = None,
    filters: options.Filters = None,
    filters_json: options.FiltersJson = None,
    parameters: Parameters = None,
    columns: options.Columns = None,
    scope: options.Scope = None,
    format_options: options.Options = None,
    compression: options.Compression = None,
    labels: Labels = False,
    language: Language = None,
    file_timezone: options.FileTimezone = None,
    locale: Locale = None,
    split_rows: SplitRows = None,
    split_bytes: SplitBytes = None,
    encrypt_for: EncryptFor = None,
    zip_password: ZipPassword = False,
    recipients: options.Recipients = None,
    webhook: options.Webhook = None,
    destination: Destination = None,
    clear: options.Clear = None,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create a schedule like another one; print its id.

    Options that are given replace its values.
    The new schedule belongs to the user of the token. A token that is signed here is that of the user of the
    other schedule.
    """
    given = dict(locals())
    with exit_on_error():
        known = _call("GET", f"/{schedule_id}", None, user_id, token, api_url)
        body = options.copy_of(known, options.body_of(given) | options.cleared(clear or ()))
        schedule = _call("POST", "", body, user_id or known["user_id"], token, api_url)
        if not as_json:
            typer.echo(schedule["id"])
        _show_next(schedule, as_json=as_json)


@cli.command("list")
def list_all(
    user_id: AsUser = None, token: Token = None, api_url: ApiUrl = None, as_json: AsJson = False
) -> None:
    """Print all schedules, newest first, with their next run.

    Those of a user; with the role exports:admin those of all users.
    """
    with exit_on_error():
        cursor: str | None = ""
        while cursor is not None:
            suffix = f"?limit=100{cursor and f'&cursor={cursor}'}"
            page = _call("GET", suffix, None, user_id, token, api_url)
            for schedule in page["schedules"]:
                if as_json:
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
def show(
    schedule_id: ScheduleId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a schedule as JSON, with its next and last runs.

    Five of each. With `--json` it is one line.
    """
    with exit_on_error():
        schedule = _call("GET", f"/{schedule_id}", None, user_id, token, api_url)
        runs = _call("GET", f"/{schedule_id}/runs?limit=5", None, user_id, token, api_url)["runs"]
        document = {**schedule, "last_runs": runs}
        typer.echo(json.dumps(document, indent=None if as_json else 2, ensure_ascii=False))


@cli.command()
def runs(
    schedule_id: ScheduleId,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many")] = 20,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print the last runs of a schedule, newest first.

    When each was due, its job, status, rows and file.
    `exporter download JOB` downloads the file of a run.
    """
    with exit_on_error():
        path = f"/{schedule_id}/runs?limit={limit}"
        for one in _call("GET", path, None, user_id, token, api_url)["runs"]:
            if as_json:
                print_json(one)
            else:
                typer.echo(_run_line(one))


@cli.command()
def pause(
    schedule_id: ScheduleId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Pause a schedule: no more runs start."""
    with exit_on_error():
        schedule = _call("PATCH", f"/{schedule_id}", {"active": False}, user_id, token, api_url)
        if as_json:
            print_json(schedule)
        else:
            typer.echo(f"Paused: {schedule_id}", err=True)


@cli.command()
def resume(
    schedule_id: ScheduleId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Resume a paused schedule, and print its next runs."""
    with exit_on_error():
        _show_next(
            _call("PATCH", f"/{schedule_id}", {"active": True}, user_id, token, api_url), as_json=as_json
        )


@cli.command()
def run(
    schedule_id: ScheduleId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Start a run now, and print the id of its job."""
    with exit_on_error():
        accepted = _call("POST", f"/{schedule_id}:run", None, user_id, token, api_url)
        if as_json:
            print_json(accepted)
        else:
            typer.echo(accepted["export_job_id"])


@cli.command()
def delete(
    schedule_id: ScheduleId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete a schedule. Its files are kept until they expire."""
    with exit_on_error():
        _call("DELETE", f"/{schedule_id}", None, user_id, token, api_url)
        if as_json:
            print_json({"id": schedule_id, "deleted": True})
        else:
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

    settings = load_settings()
    job_commands.warn_of_unused_user(settings, token, user_id)
    with job_commands.open_api(settings, api_url, token, user_id) as api:
        return api.call(method, ROOT + path, body)


def _line(schedule: dict[str, Any]) -> str:
    what = f"{schedule['export_type']} {schedule['format']}"
    when = " ".join(filter(None, (schedule["schedule"], schedule["time_of_day"], schedule["timezone"])))
    state = schedule["next_runs"][0] if schedule["next_runs"] else schedule["paused_reason"] or "paused"
    facts = [schedule["id"], what, when, state, schedule["user_id"], schedule.get("name")]
    return "  ".join(filter(None, facts))


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
