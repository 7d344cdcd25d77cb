"""The options of the commands that create and change schedules, and the bodies of their calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from producers.request_options import Content, ExportType, Format, OptionalFormat, Receivers
from streaming_exporter.errors import UsageError

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
class Kind:
    """What a new schedule needs."""

    export_type: ExportType
    file_format: Format
    when: When


@dataclass(frozen=True, slots=True)
class NewKind:
    """The same of a schedule that exists; its dataset stays."""

    file_format: OptionalFormat = None
    when: NewWhen = None


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule runs, and which rows each run has."""

    at: TimeOfDay = None
    day: Day = None
    timezone: Timezone = None
    window: Window = None
    delay: Delay = None
    catch_up: CatchUp = None
    file_timezone: FileTimezone = None


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


def body_of(kind: Kind | NewKind, timing: Timing, content: Content, receivers: Receivers) -> dict[str, Any]:
    """Return the body of a call with what was given to a command. Nothing else is in it.

    Raises:
        UsageError: an argument is invalid.
    """
    body = {
        "export_type": kind.export_type if isinstance(kind, Kind) else None,
        "format": kind.file_format,
        "schedule": kind.when,
        "time_of_day": timing.at,
        "day": timing.day,
        "timezone": timing.timezone,
        "window": timing.window,
        "delay": timing.delay,
        "catch_up": timing.catch_up,
        **content.fields(timing.file_timezone),
        "email_recipients": receivers.recipients or None,
        "webhook": receivers.webhook,
        "destination": receivers.destination,
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
