"""The words of one notification, in the language of the request, for mails and chat messages. Pure.

Text of a request or of rows is shown only where its author cannot use it to write to other people.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from stream_app.messages.catalogue import messages, text
from stream_app.notifications.mail_style import MailStyle
from stream_app.notifications.notification import Notification
from stream_app.notifications.request_words import (
    column_text,
    filter_texts,
    one_line,
    schedule_text,
    user_text,
    without_window,
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
        "secret_changed",
        "session_ended",
        "source_misconfigured",
        "table_rewritten",
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

TEMPORARY_CODES = frozenset(
    {
        "secret_changed",
        "snapshot_lost",
        "table_changed",
        "table_locked",
        "table_rewritten",
        "temporarily_unavailable",
        "temporary_disk",
        "worker_lost",
    }
)
"""Codes of errors after which the same request can succeed."""

SUPPORT_CODES = frozenset(
    {
        "missing_table",
        "session_ended",
        "source_misconfigured",
        "store_refused",
        "unsupported_source",
        "unusable_query",
    }
)
"""Codes of errors that only operators can correct."""


Fact = tuple[str, str | None]
"""The name of a fact in the messages ``mail.facts``, and its value if it has one."""


@dataclass(frozen=True, slots=True)
class FactTexts:
    """What was requested by whom, and the properties of the file. ``small`` has those for support only."""

    main: list[Fact]
    small: list[Fact]


@dataclass(frozen=True, slots=True)
class NotificationWords:
    """What a mail or a chat message states about the end of one export."""

    about: Notification

    @property
    def style(self) -> MailStyle:
        """How times and numbers are written: as in the file."""
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
        return not about.failed or about.error_code in SAFE_CODES or about.schedule_summary is not None

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
        style, requested = self.style, self.about.requested
        schedule = self.about.schedule_summary
        if schedule is not None and requested is not None and requested.run_at is not None:
            style, at = style.in_zone(schedule.timezone), requested.run_at  # as in the file's name
        return style.day(at.astimezone(style.zone or UTC).date())

    @property
    def subject(self) -> str:
        """One line that tells this notification from others."""
        about = self.about
        if about.failed:
            kind = "failed_and_paused" if about.paused is not None else "failed"
            return self.say(f"mail.subject.{kind}", title=self.title, when=self.when)
        return self.say("mail.subject.ready", title=self.title, when=self.when, rows=self._rows)

    @property
    def _rows(self) -> str:
        return (
            self.say("mail.no_rows")
            if self.about.empty
            else self.count("mail.rows", self.about.row_count or 0)
        )

    def lead(self) -> list[str]:
        """Return the first sentences: what is ready, or what has failed."""
        about = self.about
        if about.failed:
            if self.name:
                return [self.say("mail.failed.named", name=self.name)]
            kind = "lead" if self.dataset else "unnamed"
            return [self.say(f"mail.failed.{kind}", dataset=self.dataset)]
        kind = "empty" if about.empty else "lead"
        if self.name:
            kind = "empty_named" if about.empty else "named"
        found = [self.say(f"mail.ready.{kind}", name=self.name, dataset=self.dataset, rows=self._rows)]
        if about.has_several_files and about.file_count is None:
            found.append(self.say("mail.ready.several_files"))
        elif about.has_several_files:
            found.append(self.count("mail.ready.files", about.file_count or 0))
        if about.encryption is not None:
            found.append(self.say(f"mail.ready.encrypted.{about.encryption}", user=self.user))
        return found

    @property
    def expires(self) -> str:
        """Until when the link works."""
        at, style = self.about.expires_at, self.style
        return "" if at is None else style.zoned(style.moment(at))

    def warnings(self) -> list[str]:
        """Return what the reader of the file has to know."""
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

    def reason(self) -> str:
        """Return why there is no file, without text of the request, which recipients must not see."""
        about = self.about
        if about.language == "en" and about.error_code in SAFE_CODES and about.error_message:
            reason = one_line(about.error_message, MAX_REASON_LENGTH)
            return reason[0].upper() + reason[1:] + "." * (not reason.endswith((".", "…")))
        key = f"errors.{about.error_code}"
        return self.say(key if key in messages(about.language) else "errors.invalid_request")

    def advice(self, correct: str) -> list[str]:
        """Return what the recipient of a failure can do. ``correct`` says who can correct the request."""
        about = self.about
        found = [self._cure(correct), self.say("mail.failed.help")]
        if about.paused is not None:
            found.append(self.say("mail.failed.paused"))
        return found

    def _cure(self, correct: str) -> str:
        if self.about.error_code in TEMPORARY_CODES:
            return self.say("mail.failed.retry")
        if self.about.error_code in SUPPORT_CODES:
            return self.say("mail.failed.support")
        return correct

    def facts(self) -> FactTexts:
        """Return what was requested by whom, and the properties of the file."""
        about, style = self.about, self.style
        found: list[Fact] = []
        if about.schedule_summary is not None:
            calendar = schedule_text(about.schedule_summary, about.language, style.locale)
            named = about.schedule_summary.name and user_text(about.schedule_summary.name)
            found.append(("schedule", ", ".join(filter(None, [named, calendar])) or None))
        found += [("requested_by", self.user), ("dataset", self.dataset), ("period", self.period)]
        found += self._request() if self.is_valid else []
        small: list[Fact] = []
        if not about.failed:
            found.append(("rows", style.number(about.row_count or 0)))
            if about.has_several_files:
                found.append(("files", style.number(about.file_count or 0)))
            else:
                found.append(("file", about.download_name))
                small.append(("sha256", about.sha256))
            found.append(("size", style.size(about.file_size or 0)))
            found.append(("sent_to", about.sent_to))
            if about.as_of is not None:
                found.append(("as_of", style.zoned(style.moment(about.as_of))))
        else:
            found.append(("format", self._word(about.format)))
            if about.language != "en" and about.error_code in SAFE_CODES:
                small.append(("message", about.error_message))
        small.append(("job", str(about.job_id)))
        return FactTexts(found, small)

    def _request(self) -> list[Fact]:
        """Return which rows and columns were requested."""
        about, style = self.about, self.style
        filters = without_window(about.filters, self.window)
        rows = None
        if about.scope == "all":
            rows = self.say("page.scopes.all")
        elif about.scope is None or about.scope == "own":
            rows = self.say("mail.own_rows", user=self.user)
        elif user_text(about.scope):
            rows = self.say("page.scopes.named", scope=about.scope)
        return [
            ("rows_of", rows),
            ("filters", " · ".join(filter_texts(filters, style, about.labels)) or None),
            ("parameters", " · ".join(filter_texts(about.parameters, style)) or None),
            ("columns", column_text(about.columns, style, about.labels)),
        ]
