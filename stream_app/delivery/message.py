"""A mail as RFC 5322 wants it. Pure."""

from dataclasses import dataclass
from email.headerregistry import HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime, parseaddr
from uuid import UUID

from stream_app.delivery.content import Content
from stream_app.delivery.notice import Notice


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that comes with the mail."""

    name: str
    content_type: str
    content: bytes


class _OneLine(UnstructuredHeader):
    """A value that must not be folded: the library would turn a long URL into encoded words."""

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"  # type: ignore[attr-defined]


_HEADERS = HeaderRegistry()
for _name in ("message-id", "list-unsubscribe"):
    _HEADERS.map_to_type(_name, _OneLine)  # type: ignore[arg-type]

POLICY = SMTP.clone(header_factory=_HEADERS)


def message_id(delivery_id: UUID, sender: str) -> str:
    """The same for every attempt, so that mail servers and readers can drop repetitions."""
    return f"<{delivery_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"


def mail_of(
    notice: Notice,
    content: Content,
    *,
    sender: str,
    unsubscribe: str,
    attachment: Attachment | None = None,
) -> EmailMessage:
    """One mail to one recipient: plain text and HTML, which say the same."""
    mail = EmailMessage(policy=POLICY)
    mail["From"] = sender
    mail["To"] = notice.address
    mail["Subject"] = content.subject
    mail["Date"] = format_datetime(notice.due_at)
    mail["Message-ID"] = message_id(notice.delivery_id, sender)
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail["List-Unsubscribe"] = f"<{unsubscribe}>"
    if unsubscribe.startswith("https://"):  # RFC 8058 allows one click over nothing else
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(content.text, cte="quoted-printable")
    mail.add_alternative(content.html, subtype="html", cte="quoted-printable")
    if attachment is not None:
        maintype, _, subtype = attachment.content_type.partition(";")[0].strip().partition("/")
        mail.add_attachment(attachment.content, maintype=maintype, subtype=subtype, filename=attachment.name)
    return mail
