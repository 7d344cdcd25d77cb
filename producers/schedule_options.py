"""The options of the commands that create and change schedules, and the bodies of their calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from producers import arguments, completion
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
from streaming_exporter.errors import UsageError

_FORMAT_HELP = "Name of the file format, such as csv"
_WHEN_HELP = "daily, weekly, monthly, or a cron expression of five fields"
CLEARABLE = {
    "name": "name",
    "filters": "filters",
    "parameters": "parameters",
    "columns": "columns",
    "options": "options",
    "split": "split",
    "encrypt": "encrypt",
    "window": "window",
    "recipients": "email_recipients",
    "webhook": "webhook",
    "destination": "destination",
}
"""What can be removed from a schedule, with the name of its field."""
COPIED = (
    "export_type", "format", "name", "filters", "columns", "options", "split", "consistency", "encrypt",
    "scope", "parameters", "schedule", "time_of_day", "day", "timezone", "window", "delay", "catch_up",
    "email_recipients", "webhook", "destination",
)  # fmt: skip
"""The fields that a copy of a schedule has."""
PERIODS = ("daily", "weekly", "monthly")
MAX_NAME_LENGTH = 200

ExportType = Annotated[
    str,
    typer.Option(help="Name of the dataset, such as ledger", autocompletion=completion.datasets),
]
Format = Annotated[str, typer.Option("--format", help=_FORMAT_HELP, autocompletion=completion.formats)]
NewFormat = Annotated[str | None, typer.Option("--format", help=_FORMAT_HELP)]
When = Annotated[str, typer.Option("--schedule", "--every", help=_WHEN_HELP)]
NewWhen = Annotated[str | None, typer.Option("--schedule", "--every", help=_WHEN_HELP)]
TimeOfDay = Annotated[
    str | None, typer.Option("--time-of-day", "--at", metavar="HH:MM", help="Time of day. Default: 00:00")
]
Day = Annotated[
    int | None, typer.Option(help="weekly: 0 (Monday) to 6; monthly: 1 to 31, in shorter months the last day")
]
Timezone = Annotated[
    str | None,
    typer.Option(help="Time zone of the schedule and its windows, such as Europe/Berlin. Default: UTC"),
]
Window = Annotated[
    str | None,
    typer.Option(help="Rows of each run: none (default) for no window, previous_period or since_last_run"),
]
Delay = Annotated[
    int | None, typer.Option(min=0, help="Seconds that a run waits for rows that are written late")
]
CatchUp = Annotated[str | None, typer.Option(help="Runs missed in an outage: last (default), all or none")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="COLUMN[:OP]=VALUE",
        help="created_at:gte=now-7d, kind=proof, in bundles ledger.kind=proof …; repeatable",
    ),
]
FiltersJson = Annotated[
    str | None, typer.Option("--filters", metavar="JSON", help='Such as {"id": {"gte": 5, "lt": 9}}')
]
Columns = Annotated[
    list[str] | None, typer.Option(metavar="A,B,…", help="Columns, in this order. Default: all")
]
Scope = Annotated[
    str | None,
    typer.Option(
        help="own (default): the rows of the user; all: the rows of all users; or a scope of the dataset"
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Such as delimiter=; or header=false; repeatable"),
]
Compression = Annotated[str | None, typer.Option(help="none (default), gzip or zstd")]
FileTimezone = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE",
        help="Time zone of the times in the files. Default: the dataset's, or UTC; it does not depend on "
        "--timezone",
    ),
]
Recipients = Annotated[
    list[str] | None,
    typer.Option(
        "--recipient",
        metavar="ADDRESS",
        help="Who gets a message when the export ends: a mail address, or slack: or teams: and the URL "
        "of an incoming webhook; repeatable",
    ),
]
Webhook = Annotated[str | None, typer.Option(metavar="URL", help="URL that is called when the export ends")]
Clear = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD", help=f"Remove a value: {', '.join(CLEARABLE)}; repeatable"),
]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a new schedule needs."""

    export_type: ExportType
    file_format: Format
    when: When


@dataclass(frozen=True, slots=True)
class NewKind:
    """The same of a schedule that exists; its dataset stays."""

    file_format: NewFormat = None
    when: NewWhen = None


@dataclass(frozen=True, slots=True)
class Fields:
    """What a schedule can have besides."""

    name: Name = None
    at: TimeOfDay = None
    day: Day = None
    timezone: Timezone = None
    window: Window = None
    delay: Delay = None
    catch_up: CatchUp = None
    filters: Filters = None
    filters_json: FiltersJson = None
    parameters: Parameters = None
    columns: Columns = None
    scope: Scope = None
    format_options: Options = None
    compression: Compression = None
    labels: Labels = False
    language: Language = None
    file_timezone: FileTimezone = None
    locale: Locale = None
    split_rows: SplitRows = None
    split_bytes: SplitBytes = None
    encrypt_for: EncryptFor = None
    zip_password: ZipPassword = False
    recipients: Recipients = None
    webhook: Webhook = None
    destination: Destination = None


@dataclass(frozen=True, slots=True)
class Cleared:
    """What is removed from a schedule."""

    clear: Clear = None

    def fields(self) -> dict[str, None]:
        """Return the fields that are to be removed.

        Raises:
            UsageError: a name is unknown.
        """
        found: dict[str, None] = {}
        for name in self.clear or ():
            if name not in CLEARABLE:
                raise UsageError(f"--clear {name!r}: allowed: {', '.join(CLEARABLE)}")
            found[CLEARABLE[name]] = None
        return found


def body_of(kind: Kind | NewKind, given: Fields) -> dict[str, Any]:
    """Return the body of a call with what was given to a command. Nothing else is in it.

    Raises:
        UsageError: an argument is invalid.
    """
    body = {
        "export_type": kind.export_type if isinstance(kind, Kind) else None,
        "format": kind.file_format,
        "name": given.name,
        "schedule": kind.when,
        "time_of_day": given.at,
        "day": given.day,
        "timezone": given.timezone,
        "window": given.window,
        "delay": given.delay,
        "catch_up": given.catch_up,
        "filters": arguments.parse_filters(given.filters or (), given.filters_json) or None,
        "parameters": arguments.parse_parameters(given.parameters or ()) or None,
        "columns": arguments.parse_columns(given.columns or ()),
        "options": arguments.parse_options(
            given.format_options or (),
            given.compression,
            labels=given.labels,
            language=given.language,
            timezone=given.file_timezone,
            locale=given.locale,
        )
        or None,
        "split": arguments.parse_split(given.split_rows, given.split_bytes),
        "encrypt": arguments.parse_encrypt(given.encrypt_for or (), zip_password=given.zip_password),
        "scope": given.scope,
        "email_recipients": given.recipients or None,
        "webhook": given.webhook,
        "destination": given.destination,
    }
    return {name: value for name, value in body.items() if value is not None}


def copy_of(schedule: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a new schedule like ``schedule``, with ``changes``.

    A copy that has no new name is named as a copy. With other rules of the calendar the old day does not
    count.
    """
    body = {name: schedule.get(name) for name in COPIED}
    if body["name"]:
        suffix = " (copy)"
        body["name"] = body["name"][: MAX_NAME_LENGTH - len(suffix)] + suffix
    if changes.get("schedule", body["schedule"]) != body["schedule"]:
        body["day"] = None
        if changes["schedule"] not in PERIODS:
            body["time_of_day"] = None
    return {name: value for name, value in {**body, **changes}.items() if value is not None}
