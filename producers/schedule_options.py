"""The options of the commands that create and change schedules, and the bodies of their calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from producers.request_options import ContentOptions, ExportType, Format, NotificationOptions, OptionalFormat
from streaming_exporter.errors import UsageError

_EVERY_HELP = "daily, weekly, monthly, or a cron expression of five fields"
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

Every = Annotated[str, typer.Option("--schedule", "--every", help=_EVERY_HELP)]
OptionalEvery = Annotated[str | None, typer.Option("--schedule", "--every", help=_EVERY_HELP)]
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
FileTimezone = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE",
        help="Time zone of the times in the files. Default: the dataset's, or UTC; it does not depend on "
        "--timezone",
    ),
]
Clear = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD", help=f"Remove a value: {', '.join(CLEARABLE)}; repeatable"),
]


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """The options that a new schedule needs: dataset, format, calendar."""

    export_type: ExportType
    file_format: Format
    every: Every


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """The same options of a command that changes a schedule.

    All are optional, and the dataset cannot be changed.
    """

    file_format: OptionalFormat = None
    every: OptionalEvery = None


@dataclass(frozen=True, slots=True)
class CalendarOptions:
    """When a schedule runs, and which rows each run has."""

    time_of_day: TimeOfDay = None
    day: Day = None
    timezone: Timezone = None
    window: Window = None
    delay: Delay = None
    catch_up: CatchUp = None
    file_timezone: FileTimezone = None


@dataclass(frozen=True, slots=True)
class ClearOptions:
    """The fields that the command removes from a schedule."""

    clear: Clear = None

    def fields(self) -> dict[str, None]:
        """Return the fields that the command removes, with ``None`` as their value.

        Raises:
            UsageError: a name is unknown.
        """
        found: dict[str, None] = {}
        for name in self.clear or ():
            if name not in CLEARABLE:
                raise UsageError(f"--clear {name!r}: allowed: {', '.join(CLEARABLE)}")
            found[CLEARABLE[name]] = None
        return found


def body_of(
    basics: CreateOptions | ChangeOptions,
    calendar: CalendarOptions,
    content: ContentOptions,
    notifications: NotificationOptions,
) -> dict[str, Any]:
    """Return the body of a call with the options that were given to a command, and nothing else.

    Raises:
        UsageError: an argument is invalid.
    """
    body = {
        "export_type": basics.export_type if isinstance(basics, CreateOptions) else None,
        "format": basics.file_format,
        "schedule": basics.every,
        "time_of_day": calendar.time_of_day,
        "day": calendar.day,
        "timezone": calendar.timezone,
        "window": calendar.window,
        "delay": calendar.delay,
        "catch_up": calendar.catch_up,
        **content.fields(calendar.file_timezone),
        "email_recipients": notifications.recipients or None,
        "webhook": notifications.webhook,
        "destination": notifications.destination,
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
