"""The content of notifications, and the texts of mails as plain text and HTML. Pure."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from string import Template
from typing import Any, Self
from uuid import UUID

from stream_app.jobs.file_warnings import warnings_of
from stream_app.jobs.states import Status
from stream_app.storage.manifest import MANIFEST
from stream_app.text_style import TextStyle
from streaming_exporter.file_warnings import warning_texts

PLAIN = TextStyle()
"""Times in UTC, numbers in English."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The recipient of a delivery. The recipient can unsubscribe from ``topic``."""

    job_id: UUID
    address: str
    topic: str
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Notification:
    """The content of one claimed delivery: how one job ended. ``file_size`` is in bytes.

    ``skip_reason`` is why the delivery must not be sent, ``paused`` why the job's schedule is paused.
    """

    delivery_id: UUID
    attempt: int
    address: str
    due_at: datetime
    job_id: UUID
    event: str
    user_id: str
    export_type: str
    format: str
    host: str = ""
    """Host and port of a webhook."""
    skip_reason: str | None = None
    row_count: int | None = None
    file_size: int | None = None
    file_name: str | None = None
    file_path: str | None = None
    file_count: int | None = None
    content_type: str | None = None
    sha256: str | None = None
    as_of: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    window: tuple[str, str] | None = None
    warnings: Mapping[str, int] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None
    paused: str | None = None
    traceparent: str | None = None
    name: str | None = None
    """The name that the user gave the export: any one line of text."""
    label: str | None = None
    """The name of the dataset for people, if the file has labels."""
    options: Any = None
    """The options of the request, which can be invalid."""
    timezone: str | None = None
    """The time zone of the file."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Make the notification from a row that a claim returns."""
        job = {
            name: row[name]
            for name in (
                "row_count",
                "file_size",
                "file_name",
                "file_path",
                "file_count",
                "content_type",
                "sha256",
                "as_of",
                "completed_at",
                "expires_at",
                "error_code",
                "error_message",
                "paused",
                "name",
                "traceparent",
            )
        }
        return cls(
            delivery_id=row["delivery_id"],
            attempt=row["attempts"],
            address=row["address"],
            due_at=row["due_at"],
            job_id=row["job_id"],
            event=row["event"],
            user_id=row["user_id"] or "",
            export_type=row["export_type"] or "",
            format=row["format"] or "",
            host=row["host"],
            skip_reason=_skip_reason(row),
            window=_window(row["window"]),
            warnings=warnings_of(row["manifest"]),
            label=_text_of(row["manifest"], "label"),
            options=row["options"],
            timezone=_text_of(row["manifest"], "timezone"),
            **job,
        )

    @property
    def style(self) -> TextStyle:
        """How times and numbers are written: as in the file. The first use of a locale takes long."""
        return TextStyle.of_stored(self.options, self.timezone)

    @property
    def failed(self) -> bool:
        """Return whether the export failed, so there is no file."""
        return self.event == Status.FAILED

    @property
    def has_several_files(self) -> bool:
        """Return whether the link leads to a list of files."""
        return (self.file_path or "").endswith(f"/{MANIFEST}") and self.file_count != 1

    @property
    def empty(self) -> bool:
        """Return whether the file has no rows."""
        return not self.failed and self.row_count == 0


def _skip_reason(row: Mapping[str, Any]) -> str | None:
    if row["id"] is None:
        return "the record of the job was deleted"
    if row["event"] == Status.COMPLETED and row["gone"]:
        return "the file has expired"
    if row["revoked_at"] is not None:
        return "the link was revoked"
    if row["unsubscribed"]:
        return "the recipient has unsubscribed"
    if row["suppressed"] is not None:
        return f"the mail server has refused this address before: {row['suppressed']}"
    return None


def _text_of(manifest: object, name: str) -> str | None:
    found = manifest.get(name) if isinstance(manifest, dict) else None
    return found if isinstance(found, str) else None


def _window(window: object) -> tuple[str, str] | None:
    if not isinstance(window, dict) or not {"from", "to"} <= window.keys():
        return None
    return str(window["from"]), str(window["to"])


MAX_REASON_LENGTH = 600

SAFE_CODES = frozenset(
    {
        "columns_changed",
        "grant_lapsed",
        "missing_column",
        "missing_table",
        "no_time_column",
        "scope_not_allowed",
        "source_misconfigured",
        "temporarily_unavailable",
        "timeout",
        "too_large",
        "too_many_bytes",
        "too_many_files",
        "too_many_rows",
        "too_wide",
        "unsupported_source",
        "worker_lost",
    }
)
"""Codes of errors whose messages contain no text of the request and no value of a row."""

GENERAL_REASONS = {
    "bad_filter_value": "The value of a filter does not fit its column.",
    "bad_schedule": "The stored schedule is not valid.",
    "schedule_unusable": "The stored schedule is not valid.",
    "unknown_column": "The request names a column that the dataset does not have.",
    "unknown_dataset": "The request names a dataset that does not exist.",
    "unknown_format": "The request names a format that does not exist.",
    "unknown_operator": "A filter uses an operator that its column does not allow.",
    "duplicate_labels": "Two columns have the same label.",
    "unknown_locale": "The request names a locale that does not exist.",
    "unknown_timezone": "The request or the schedule names a time zone that does not exist.",
    "value_too_large": "A value is too large for the format.",
}
"""Texts in mails for other errors."""


@dataclass(frozen=True, slots=True)
class MailContent:
    """A mail's subject and its two bodies."""

    subject: str
    text: str
    html: str


def render_mail(
    notification: Notification, *, link: str, unsubscribe: str, attached: bool = False
) -> MailContent:
    """Write the mail about the end of an export."""
    style = notification.style
    dataset = _dataset(notification) or "data"
    facts = _facts(notification)
    if notification.failed:
        reason = _reason(notification)
        advice = _ADVICE
        if notification.paused is not None:
            advice += " The schedule is paused. It starts no more exports until you resume it."
        parts = {"reason": reason, "advice": advice, "unsubscribe": unsubscribe}
        subject = f"Export of {dataset} failed" + (", its schedule is paused" if notification.paused else "")
        return MailContent(
            subject=subject,
            text=_text(_FAILED_TEXT, facts, **parts),
            html=_html(_FAILED_HTML, facts, **parts),
        )
    rows = (
        "no rows"
        if notification.empty
        else f"{style.number(notification.row_count or 0)} row{'s' * (notification.row_count != 1)}"
    )
    lead = f"The export of {dataset} is ready: {rows}."
    if notification.empty:
        lead = f"The export of {dataset} is ready, but no row matched, so the file has no rows."
    if notification.has_several_files:
        count = "several" if notification.file_count is None else style.number(notification.file_count)
        lead += f" It has {count} files, which the link lists."
    if attached:
        lead += " The file is attached."
    until = f"This link is only for you. It is valid until {_moment(notification.expires_at, style)}."
    warnings = [f"{text[0].upper()}{text[1:]}." for text in warning_texts(notification.warnings)]
    parts = {"lead": lead, "link": link, "until": until, "unsubscribe": unsubscribe}
    return MailContent(
        subject=f"Export of {dataset}: {rows}",
        text=_text(_READY_TEXT, facts, warnings, **parts),
        html=_html(_READY_HTML, facts, warnings, **parts),
    )


def one_line(text: str, limit: int) -> str:
    """Return ``text`` without line breaks, control and direction characters, cut to ``limit`` characters.

    Encoded words are broken up too, because in a header they could hide such characters.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    line = line.replace("=?", "= ?")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _dataset(notification: Notification) -> str | None:
    """Return the name of the dataset, or ``None`` if it must not be shown."""
    if notification.label and not notification.failed:
        return one_line(notification.label, 200)
    return _named(notification, notification.export_type)


def _named(notification: Notification, text: str) -> str | None:
    """Return a name from the request, or ``None`` if it must not be shown.

    After a completed export the name is that of a dataset. A failed request can contain any text, which its
    author could use to send a message. So the name is shown only if it is one plain word, which is neither a
    sentence nor a link.
    """
    if not notification.failed or re.fullmatch(r"\w[\w-]{0,99}", text):
        return one_line(text, 100)
    return None


def _reason(notification: Notification) -> str:
    """Return why there is no file, without text of the request, which recipients must not see."""
    if notification.error_code in SAFE_CODES and notification.error_message:
        return one_line(notification.error_message, MAX_REASON_LENGTH)
    text = GENERAL_REASONS.get(notification.error_code or "", "The request is not valid.")
    return f"{text} The record of the job has the details."


def _facts(notification: Notification) -> list[tuple[str, str]]:
    style = notification.style
    words = {
        "Dataset": _dataset(notification),
        "Format": _named(notification, notification.format),
    }
    facts = [(name, word) for name, word in words.items() if word]
    if not notification.failed:
        facts.append(("Rows", style.number(notification.row_count or 0)))
        facts.append(("Size", style.size(notification.file_size or 0)))
    if notification.window is not None:
        facts.append(("Period", _period(notification.window, style)))
    if not notification.failed:
        facts.append(("As of", _moment(notification.as_of, style)))
        if notification.has_several_files:
            facts.append(("Files", style.number(notification.file_count or 0)))
        else:
            facts += [("File", notification.file_name or ""), ("SHA-256", notification.sha256 or "")]
    facts.append(("Job", str(notification.job_id)))
    return [(name, one_line(value, 300)) for name, value in facts]


def _moment(at: datetime | None, style: TextStyle) -> str:
    return "" if at is None else style.moment(at, seconds=False)


def _period(window: tuple[str, str], style: TextStyle) -> str:
    """Return the window of a run. Without a time zone and a locale its times are as they are stored."""
    first, end = window
    if style != PLAIN:
        with suppress(ValueError):
            first, end = (style.moment(datetime.fromisoformat(time)) for time in window)
    return f"from {first} until before {end}"


def _text(
    template: Template, facts: list[tuple[str, str]], warnings: Sequence[str] = (), **parts: str
) -> str:
    width = max(len(name) for name, _ in facts) + 1
    table = "\n".join(f"{name + ':':<{width}} {value}" for name, value in facts)
    listed = "".join(f"! {text}\n" for text in warnings) + "\n" * bool(warnings)
    return template.substitute(parts, facts=table, warnings=listed)


def _html(
    template: Template, facts: list[tuple[str, str]], warnings: Sequence[str] = (), **parts: str
) -> str:
    rows = "\n".join(
        f'<tr><th align="left" style="{_NAME}">{escape(name)}</th>'
        f'<td style="{_VALUE}">{escape(value)}</td></tr>'
        for name, value in facts
    )
    listed = "".join(f'<p style="{_WARNING}">{escape(text)}</p>\n' for text in warnings)
    body = template.substitute(
        {name: escape(value) for name, value in parts.items()}, facts=rows, warnings=listed
    )
    return _PAGE.substitute(body=body, unsubscribe=escape(parts["unsubscribe"]))


_NAME = "padding:4px 16px 4px 0;color:#667085;font-weight:normal;white-space:nowrap;vertical-align:top"
_VALUE = "padding:4px 0;word-break:break-word"
_WARNING = "margin:0 0 12px;padding:8px 14px;border-left:4px solid #b45309;word-break:break-word"

_ADVICE = (
    "Correct the reason and request the export again. "
    "If you cannot correct it, send the job's id to the operators of the service."
)

_WHY = "You receive this mail because you are a recipient of this export."

_READY_TEXT = Template(f"""\
$lead

Download:
$link

$until

$warnings$facts

--\x20
{_WHY}
Unsubscribe: $unsubscribe
""")

_FAILED_TEXT = Template(f"""\
The export failed.

$reason

$advice

$facts

--\x20
{_WHY}
Unsubscribe: $unsubscribe
""")

_PAGE = Template(f"""\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\
<meta name="color-scheme" content="light dark"><title>Export</title></head>
<body style="margin:0;padding:24px;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif">
<div style="max-width:600px;margin:0 auto">
$body
<p style="margin:32px 0 0;padding-top:12px;border-top:1px solid #d0d5dd;color:#667085;font-size:13px">
{_WHY} <a href="$unsubscribe" style="color:#667085">Unsubscribe</a></p>
</div>
</body>
</html>
""")

_TABLE = '<table role="presentation" cellpadding="0" cellspacing="0" style="border-collapse:collapse">'

_READY_HTML = Template(f"""\
<p style="margin:0 0 16px;font-size:17px">$lead</p>
<p style="margin:0 0 8px"><a href="$link" style="display:inline-block;padding:10px 20px;border-radius:6px;\
background:#175cd3;color:#ffffff;text-decoration:none;font-weight:600">Download</a></p>
<p style="margin:0 0 20px;color:#667085;font-size:13px">$until</p>
$warnings{_TABLE}
$facts
</table>""")

_FAILED_HTML = Template(f"""\
<p style="margin:0 0 16px;font-size:17px">The export failed.</p>
<p style="margin:0 0 16px;padding:10px 14px;border-left:4px solid #d92d20;word-break:break-word">$reason</p>
<p style="margin:0 0 20px">$advice</p>
{_TABLE}
$facts
</table>""")
