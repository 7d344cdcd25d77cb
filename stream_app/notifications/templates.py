"""The texts of mails, as plain text and as HTML, in the language of the request. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from stream_app.messages.catalogue import messages, text
from stream_app.notifications import mail_html
from stream_app.notifications.mail_style import MailStyle
from stream_app.notifications.notification import Notification
from stream_app.notifications.request_words import (
    column_text,
    filter_texts,
    one_line,
    rhythm_text,
    user_text,
)

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

TEMPORARY_CODES = frozenset({"snapshot_lost", "table_locked", "temporarily_unavailable", "worker_lost"})
"""Codes of errors after which the same request can succeed."""

SUPPORT_CODES = frozenset(
    {"missing_table", "source_misconfigured", "store_refused", "unsupported_source", "unusable_query"}
)
"""Codes of errors that only operators can correct."""


@dataclass(frozen=True, slots=True)
class MailContent:
    """A mail's subject and its two bodies."""

    subject: str
    text: str
    html: str


def render_mail(
    notification: Notification, *, link: str, unsubscribe: str, attached: bool = False
) -> MailContent:
    """Write the mail about the end of an export. The first use of a locale takes long."""
    return _Mail(notification, link, unsubscribe, attached).content()


@dataclass(frozen=True, slots=True)
class _Mail:
    """Writes one mail."""

    about: Notification
    link: str
    unsubscribe: str
    attached: bool

    def content(self) -> MailContent:
        """Return the mail."""
        return self._failed() if self.about.failed else self._ready()

    @property
    def style(self) -> MailStyle:
        about = self.about
        return MailStyle.of(about.language, about.options, about.timezone)

    def say(self, key: str, **values: object) -> str:
        """Return a message in the language of the mail."""
        return text(self.about.language, key, None, **values)

    def count(self, key: str, number: int, **values: object) -> str:
        """Return a message with a number, which is written as in the file."""
        return text(self.about.language, key, number, count=self.style.number(number), **values)

    @property
    def is_valid(self) -> bool:
        """Whether the request was valid. The text of an invalid one can be a message of its author."""
        about = self.about
        return not about.failed or about.error_code in SAFE_CODES or about.rhythm is not None

    @property
    def name(self) -> str | None:
        """The name that the user gave the export, or the title of its file."""
        options = self.about.options if isinstance(self.about.options, dict) else {}
        for given in (self.about.name, options.get("title")):
            if self.is_valid and isinstance(given, str) and given.strip():
                return user_text(given)
        return None

    @property
    def dataset(self) -> str | None:
        """The dataset, or ``None`` if its name must not be shown."""
        if self.about.label and not self.about.failed:
            return one_line(self.about.label, 200)
        return self._word(self.about.export_type)

    @property
    def user(self) -> str:
        """Who requested the export."""
        user = self.about.user_id
        shown = user_text(user, 100) if self.is_valid else self._word(user)
        return shown or self.say("mail.the_requester")

    def _word(self, given: str) -> str | None:
        """Return a name from the request, or ``None`` if it must not be shown.

        After a completed export the name is that of a dataset. A failed request can contain any text, which
        its author could use to send a message. So the name is shown only if it is one plain word, which is
        neither a sentence nor a link.
        """
        if not self.about.failed or re.fullmatch(r"\w[\w-]{0,99}", given):
            return one_line(given, 100)
        return None

    @property
    def title(self) -> str:
        """What the subject calls the export."""
        if self.name:
            return self.name
        return self.say("mail.dataset", dataset=self.dataset) if self.dataset else self.say("mail.data")

    @property
    def window(self) -> tuple[datetime, datetime] | None:
        """The window of a schedule's run, or ``None`` if there is none that can be read."""
        try:
            start, end = map(datetime.fromisoformat, self.about.window or ())
        except ValueError:
            return None
        return (start, end) if start.tzinfo is not None and end.tzinfo is not None else None

    @property
    def period(self) -> str | None:
        """The period of a schedule's run, with its time zone."""
        style = self.style.in_zone(self.about.window_zone)
        if self.window is not None:
            return style.zoned(style.period(*self.window))
        if self.about.window is not None:
            return self.say("mail.from_to", first=self.about.window[0], last=self.about.window[1])
        return None

    @property
    def when(self) -> str:
        """What tells this mail from the one of the run before: the period, or else the day."""
        at = self.about.as_of or self.about.completed_at or self.about.due_at
        if self.window is not None:
            return self.style.in_zone(self.about.window_zone).period(*self.window)
        return self.style.day(at.astimezone(self.style.zone or UTC).date())

    def _ready(self) -> MailContent:
        about, style = self.about, self.style
        count = about.row_count or 0
        rows = self.say("mail.no_rows") if about.empty else self._rows(count)
        kind = "empty" if about.empty else "lead"
        if self.name:
            kind = "empty_named" if about.empty else "named"
        sentences = [self.say(f"mail.ready.{kind}", name=self.name, dataset=self.dataset, rows=rows)]
        if about.has_several_files and about.file_count is None:
            sentences.append(self.say("mail.ready.several_files"))
        elif about.has_several_files:
            sentences.append(self.count("mail.ready.files", about.file_count or 0))
        if self.attached:
            sentences.append(self.say("mail.ready.attached"))
        lead = " ".join(sentences)
        expires = "" if about.expires_at is None else style.zoned(style.moment(about.expires_at))
        until = self.say("mail.ready.until", time=expires)
        download = self.say("mail.ready.download")
        warnings = self._warnings()
        plain = [lead, f"{download}:\n{self.link}", until, *(f"! {item}" for item in warnings)]
        html = [
            mail_html.lead(lead),
            mail_html.button(download, self.link),
            mail_html.hint(until),
            *(mail_html.remark(item, "note") for item in warnings),
        ]
        subject = self.say("mail.subject.ready", title=self.title, when=self.when, rows=rows)
        return self._mail(subject, plain, html)

    def _failed(self) -> MailContent:
        about = self.about
        if self.name:
            lead = self.say("mail.failed.named", name=self.name)
        elif self.dataset:
            lead = self.say("mail.failed.lead", dataset=self.dataset)
        else:
            lead = self.say("mail.failed.unnamed")
        reason = self._reason()
        advice = [self._advice(), self.say("mail.failed.help")]
        if about.paused is not None:
            advice.append(self.say("mail.failed.paused"))
        plain = [lead, reason, " ".join(advice)]
        html = [mail_html.lead(lead), mail_html.remark(reason, "bad"), mail_html.paragraph(" ".join(advice))]
        kind = "failed_and_paused" if about.paused is not None else "failed"
        return self._mail(self.say(f"mail.subject.{kind}", title=self.title, when=self.when), plain, html)

    def _mail(self, subject: str, plain: list[str], html: list[str]) -> MailContent:
        """Put a mail together: its own parts, then what was requested, then why it is sent."""
        language = self.about.language
        facts = self._facts()
        topic = "user" if self.about.rhythm is None else "schedule"
        why = self.say(f"mail.why.{topic}", user=self.user)
        stop = self.say(f"mail.unsubscribe.{topic}", user=self.user)
        signature = f"-- \n{why}\n{stop}: {self.unsubscribe}"
        parts = [*plain, _columns(facts.main), _columns(facts.small), signature]
        footer = f"{escape(why)} {mail_html.link(stop, self.unsubscribe)}"
        return MailContent(
            subject=subject,
            text="\n\n".join(parts) + "\n",
            html=mail_html.page(language, subject, *html, mail_html.table(facts), footer=footer),
        )

    def _rows(self, count: int) -> str:
        return self.count("mail.rows", count)

    def _warnings(self) -> list[str]:
        known = messages(self.about.language)
        found = []
        for name, count in self.about.warnings.items():
            key = f"warnings.{name}"
            if count > 0 and key in known:
                found.append(self.count(key, count) + ".")
            elif count > 0:
                shown = one_line(name, 50).replace("_", " ")
                found.append(self.count("warnings.other", count, name=shown))
        return found

    def _reason(self) -> str:
        """Return why there is no file, without text of the request, which recipients must not see."""
        about = self.about
        if about.language == "en" and about.error_code in SAFE_CODES and about.error_message:
            reason = one_line(about.error_message, MAX_REASON_LENGTH)
            return reason[0].upper() + reason[1:] + "." * (not reason.endswith((".", "…")))
        key = f"errors.{about.error_code}"
        return self.say(key if key in messages(about.language) else "errors.invalid_request")

    def _advice(self) -> str:
        if self.about.error_code in TEMPORARY_CODES:
            return self.say("mail.failed.retry")
        if self.about.error_code in SUPPORT_CODES:
            return self.say("mail.failed.support")
        return self.say("mail.failed.correct", user=self.user)

    def _facts(self) -> mail_html.Facts:
        """Return what was requested by whom, and the properties of the file."""
        about, style = self.about, self.style
        found: list[tuple[str, str | None]] = []
        if about.rhythm is not None:
            rhythm = rhythm_text(about.rhythm, about.language, style.locale)
            named = about.rhythm.name and user_text(about.rhythm.name)
            found.append(("schedule", ", ".join(filter(None, [named, rhythm])) or None))
        found += [("requested_by", self.user), ("dataset", self.dataset), ("period", self.period)]
        found += self._request() if self.is_valid else []
        small: list[tuple[str, str | None]] = []
        if not about.failed:
            found.append(("rows", style.number(about.row_count or 0)))
            if about.has_several_files:
                found.append(("files", style.number(about.file_count or 0)))
            else:
                found.append(("file", about.file_name))
                small.append(("sha256", about.sha256))
            found.append(("size", style.size(about.file_size or 0)))
            if about.as_of is not None:
                found.append(("as_of", style.zoned(style.moment(about.as_of))))
        else:
            found.append(("format", self._word(about.format)))
            if about.language != "en" and about.error_code in SAFE_CODES:
                small.append(("message", about.error_message))
        small.append(("job", str(about.job_id)))
        return mail_html.Facts(self._named(found), self._named(small))

    def _request(self) -> list[tuple[str, str | None]]:
        """Return which rows and columns were requested."""
        about, style = self.about, self.style
        rows = None
        if about.scope == "all":
            rows = self.say("page.scopes.all")
        elif about.scope is None or about.scope == "own":
            rows = self.say("mail.own_rows", user=self.user)
        elif user_text(about.scope):
            rows = self.say("page.scopes.named", scope=about.scope)
        return [
            ("rows_of", rows),
            ("filters", " · ".join(filter_texts(about.filters, style)) or None),
            ("parameters", " · ".join(filter_texts(about.parameters, style)) or None),
            ("columns", column_text(about.columns, style)),
        ]

    def _named(self, facts: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
        return [(self.say(f"mail.facts.{name}"), one_line(value, 1000)) for name, value in facts if value]


def _columns(facts: Sequence[tuple[str, str]]) -> str:
    """Return facts with all values in one column."""
    width = max((len(name) for name, _ in facts), default=0) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in facts)
