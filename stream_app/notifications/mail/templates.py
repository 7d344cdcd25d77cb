"""The texts of mails, as plain text and as HTML, in the language of the request. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stream_app.notifications.mail import html as mail_html
from stream_app.notifications.notification import Notification
from stream_app.notifications.notification_words import Fact, NotificationWords
from stream_app.notifications.request_words import one_line


@dataclass(frozen=True, slots=True)
class MailContent:
    """A mail's subject and its two bodies."""

    subject: str
    text: str
    html: str


def render_mail(
    notification: Notification, *, link: str, unsubscribe: str, page: str, attached: bool = False
) -> MailContent:
    """Write the mail about the end of an export. The first use of a locale takes long.

    Args:
        notification: how the job ended.
        link: the link to the file.
        unsubscribe: the link that unsubscribes the recipient.
        page: the address at which the page shows the job to its user.
        attached: whether the file is attached.
    """
    return _Mail(NotificationWords(notification), link, unsubscribe, page, attached).content()


@dataclass(frozen=True, slots=True)
class _Mail:
    """Writes one mail."""

    words: NotificationWords
    link: str
    unsubscribe: str
    page: str
    attached: bool

    def content(self) -> MailContent:
        """Return the mail."""
        return self._failed() if self.words.about.failed else self._ready()

    def _ready(self) -> MailContent:
        words = self.words
        sentences = words.lead()
        if self.attached:
            sentences.append(words.say("mail.ready.attached"))
        lead = " ".join(sentences)
        until = words.say("mail.ready.until", time=words.expires)
        download = words.say("mail.ready.download")
        warnings = words.warnings()
        has_password = words.about.encryption == "zip_password"
        show = [words.say("mail.ready.show_password")] if has_password else []
        plain = [
            lead,
            f"{download}:\n{self.link}",
            *(f"{item}:\n{self.page}" for item in show),
            until,
            *(f"! {item}" for item in warnings),
        ]
        html = [
            mail_html.lead(lead),
            mail_html.button(download, self.link),
            *(mail_html.button(item, self.page) for item in show),
            mail_html.hint(until),
            *(mail_html.remark(item, "note") for item in warnings),
        ]
        return self._mail(plain, html)

    def _failed(self) -> MailContent:
        words = self.words
        lead, reason = " ".join(words.lead()), words.reason()
        advice = " ".join(words.advice(words.say("mail.failed.correct", user=words.user)))
        show = words.say("mail.failed.show")
        plain = [lead, reason, advice, f"{show}:\n{self.page}"]
        html = [
            mail_html.lead(lead),
            mail_html.remark(reason, "bad"),
            mail_html.paragraph(advice),
            mail_html.button(show, self.page),
        ]
        return self._mail(plain, html)

    def _mail(self, plain: list[str], html: list[str]) -> MailContent:
        """Put a mail together: its own parts, then what was requested, then why it is sent."""
        words = self.words
        found = words.facts()
        facts = mail_html.FactTable(self._named(found.main), self._named(found.small))
        topic = "user" if words.about.schedule_summary is None else "schedule"
        why = words.say(f"mail.why.{topic}", user=words.user)
        stop = words.say(f"mail.unsubscribe.{topic}", user=words.user)
        signature = f"-- \n{why}\n{stop}: {self.unsubscribe}"
        parts = [*plain, _columns(facts.main), _columns(facts.small), signature]
        footer = f"{escape(why)} {mail_html.link(stop, self.unsubscribe)}"
        return MailContent(
            subject=words.subject,
            text="\n\n".join(parts) + "\n",
            html=mail_html.page(
                words.about.language, words.subject, *html, mail_html.table(facts), footer=footer
            ),
        )

    def _named(self, facts: Sequence[Fact]) -> list[tuple[str, str]]:
        return [
            (self.words.say(f"mail.facts.{name}"), one_line(value, 1000)) for name, value in facts if value
        ]


def _columns(facts: Sequence[tuple[str, str]]) -> str:
    """Return facts with all values in one column."""
    width = max((len(name) for name, _ in facts), default=0) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in facts)
