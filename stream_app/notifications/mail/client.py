"""Builds mails and sends them over SMTP; classifies the replies of the mail server."""

import asyncio
import hashlib
import math
import re
from dataclasses import dataclass
from email import policy as policies
from email.headerregistry import HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import Policy
from email.utils import format_datetime, formataddr, parseaddr
from uuid import UUID

import structlog
from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
)

from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused, DeliveryUncertain
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.mail.templates import MailContent, render_mail
from stream_app.notifications.notification import Notification
from stream_app.notifications.request_words import one_line
from stream_app.settings import Settings
from stream_app.storage.manifest import MANIFEST
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import ExporterError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that is attached to a mail."""

    name: str
    content_type: str
    content: bytes


class _OneLine(UnstructuredHeader):
    """A header that is not folded: folding would turn a long URL into encoded words."""

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"  # type: ignore[attr-defined]


_HEADERS = HeaderRegistry()
for _name in ("message-id", "list-unsubscribe"):
    _HEADERS.map_to_type(_name, _OneLine)  # type: ignore[arg-type]

POLICY = policies.SMTP.clone(header_factory=_HEADERS)


def message_id(delivery_id: UUID, sender: str) -> str:
    """Return the Message-ID: the same for every attempt, so that mail programs can drop repetitions."""
    return f"<{delivery_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"


DISPLAY_NAME = "Exports"
"""Name of the sender for people, if the setting has an address without a name."""


def sender_of(setting: str) -> str:
    """Return the sender of mails: an address with a name."""
    name, address = parseaddr(setting)
    return setting if name else formataddr((DISPLAY_NAME, address))


def build_mail(
    notification: Notification,
    content: MailContent,
    *,
    sender: str,
    unsubscribe: str,
    attachment: Attachment | None = None,
) -> EmailMessage:
    """Build a mail to one recipient, with the same content as plain text and as HTML."""
    mail = EmailMessage(policy=POLICY)
    mail["From"] = sender_of(sender)
    mail["To"] = notification.address
    mail["Subject"] = content.subject
    mail["Date"] = format_datetime(notification.due_at)
    mail["Message-ID"] = message_id(notification.delivery_id, sender)
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail["List-Unsubscribe"] = f"<{unsubscribe}>"
    if unsubscribe.startswith("https://"):  # RFC 8058 allows one-click only over https
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(content.text, cte="quoted-printable")
    mail.add_alternative(content.html, subtype="html", cte="quoted-printable")
    if attachment is not None:
        maintype, _, subtype = attachment.content_type.partition(";")[0].strip().partition("/")
        mail.add_attachment(attachment.content, maintype=maintype, subtype=subtype, filename=attachment.name)
    return mail


TLS_PORT = 465

CLAIM_TIMEOUTS = 3
"""How many time-outs a claim holds at least. The client needs one to read a file, one to send the mail with
it, and one to send the mail without it if the server refuses that."""

RESET_SECONDS = 5.0
"""How long a server can take to forget a mail that was begun."""

STOPPED = "the worker was stopped before the mail was sent"
UNREADABLE = "the file to attach cannot be read at the moment"
AWAY = "the mail server cannot be reached"
SILENT = "the mail server did not answer in time"
NOT_TAKEN = "the mail server does not take mails of the service at the moment"
LOST = "the connection to the mail server was lost; the mail can have arrived"

_BAD_ADDRESS = re.compile(r"5\.(?:1\.(?:1|2|3|6|10)|2\.1)(?![\d.])", re.ASCII)
"""Enhanced status codes of addresses that get no mail (RFC 3463, RFC 7505). A reply code alone, such as 550,
says too little: servers send it also for all recipients of a sender, or of a network, that they refuse."""


class MailClient:
    """Sends mails to one server. Connections stay open while more mails are due."""

    def __init__(self, settings: Settings, links: DeliveryLinks, storage: ObjectStore) -> None:
        self._settings = settings
        self._links = links
        self._storage = storage
        self._sender = parseaddr(settings.mail_from)[1]
        self._idle: list[SMTP] = []
        self._stopping = asyncio.Event()

    async def send(self, notification: Notification) -> None:
        """Send one mail. The errors are those of :meth:`.DeliveryClient.send`.

        If the server does not take the mail with its file, the recipient gets the mail without the file. That
        has a time-out of its own, as far as the claim of the delivery reaches.
        """
        loop, limit = asyncio.get_running_loop(), self._settings.delivery_timeout_seconds
        until = loop.time() + CLAIM_TIMEOUTS * limit
        attachment = await self._attachment(notification)
        body = await self._body(notification, attachment)
        refusal = await self._post(notification.address, body, limit, has_file=attachment is not None)
        if refusal is None:
            return
        log.info(
            "delivery.attachment_left_out",
            delivery=str(notification.delivery_id),
            job_id=str(notification.job_id),
            reason=one_line(refusal, 300),
        )
        body = await self._body(notification, None)
        await self._post(notification.address, body, min(limit, until - loop.time()), has_file=False)

    async def _post(self, address: str, body: bytes, limit: float, *, has_file: bool) -> str | None:
        """Send a mail within ``limit`` seconds.

        Returns:
            Why the server does not take the mail with its file; ``None`` if the mail was sent.

        Raises:
            DeliveryFailed: it can be retried.
            DeliveryRefused: the server refuses it, not because of a file.
            DeliveryUncertain: it is not known whether it was sent.
        """
        if self._stopping.is_set():
            raise DeliveryFailed(STOPPED)
        client = self._idle.pop() if self._idle else self._client()
        data_sent, refusal = False, None
        try:
            async with asyncio.timeout(limit):
                if not client.is_connected:
                    await client.connect()
                await client.mail(self._sender)
                await client.rcpt(address)
                if has_file and len(body) > (largest := largest_mail(client)):
                    refusal = f"SIZE: {largest:,}"
                    await self._reset(client)
                else:
                    data_sent = True
                    await client.data(body)
        except BaseException as error:
            client.close()  # some servers end the connection after a refusal, too
            if has_file and isinstance(error, SMTPDataError) and error.code >= 500:
                return f"{error.code} {error.message}"
            if isinstance(error, SMTPException | OSError):
                raise delivery_error(error, data_sent) from error
            raise
        self._idle.append(client)
        return refusal

    async def _reset(self, client: SMTP) -> None:
        """Let the server forget a mail that was begun. If it refuses, the next mail has a new connection."""
        try:
            await client.rset(timeout=RESET_SECONDS)
        except (SMTPException, OSError):
            client.close()

    async def mail(self, notification: Notification) -> EmailMessage:
        """Build the mail that :meth:`send` sends.

        Raises:
            DeliveryFailed: the file to attach cannot be read at the moment, or the worker stops.
        """
        return await self._build(notification, await self._attachment(notification))

    async def _body(self, notification: Notification, attachment: Attachment | None) -> bytes:
        return (await self._build(notification, attachment)).as_bytes()

    async def _build(self, notification: Notification, attachment: Attachment | None) -> EmailMessage:
        unsubscribe = self._links.unsubscribe(notification.delivery_id)
        content = await asyncio.to_thread(
            render_mail,
            notification,
            link=self._links.download(notification.delivery_id),
            unsubscribe=unsubscribe,
            page=self._links.page(notification.job_id),
            attached=attachment is not None,
        )
        return build_mail(
            notification,
            content,
            sender=self._settings.mail_from,
            unsubscribe=unsubscribe,
            attachment=attachment,
        )

    def interrupt(self) -> None:
        """End waits soon, because the worker stops. What is being sent has a time-out."""
        self._stopping.set()

    async def close_idle(self) -> None:
        """Close the idle connections to the mail server."""
        while self._idle:
            client = self._idle.pop()
            try:
                await client.quit(timeout=5)
            except (SMTPException, OSError):
                client.close()

    def _client(self) -> SMTP:
        settings = self._settings
        password = settings.smtp_password
        use_tls = settings.smtp_port == TLS_PORT and not settings.smtp_starttls
        return SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            use_tls=use_tls,
            start_tls=settings.smtp_starttls,
            timeout=settings.delivery_timeout_seconds,
        )

    async def _attachment(self, notification: Notification) -> Attachment | None:
        size, limit = notification.file_size, self._settings.mail_attach_max_bytes
        if notification.failed or notification.file_path is None or size is None or size > limit:
            return None
        if notification.file_path.endswith(f"/{MANIFEST}"):
            return None  # the link leads to the files
        content = await self._read(notification.file_path)
        self._check(content, notification)
        name = one_line(notification.download_name or "export", 200)
        return Attachment(name, notification.content_type or "application/octet-stream", content)

    @staticmethod
    def _check(content: bytes, notification: Notification) -> None:
        """Compare what was read with the record. A mail cannot be taken back.

        Raises:
            DeliveryFailed: it is not what the job wrote. A proxy in front of the store can have cut it.
        """
        size, digest = len(content), hashlib.sha256(content).hexdigest()
        if size != notification.file_size or notification.sha256 not in (None, digest):
            found = f"{notification.file_path} has {size} bytes with sha256 {digest}"
            raise DeliveryFailed(UNREADABLE, detail=f"{found}, not those of the record")

    async def _read(self, key: str) -> bytes:
        """Read a file, for as long as a mail can take to be sent: the claim of the delivery ends later.

        Raises:
            DeliveryFailed: it cannot be read in time, or the worker stops.
        """
        reading = asyncio.ensure_future(self._storage.run_in_thread(self._storage.read, key))
        stopping = asyncio.create_task(self._stopping.wait())
        limit = self._settings.delivery_timeout_seconds
        try:
            await asyncio.wait({reading, stopping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
        except ExporterError as error:
            raise DeliveryFailed(UNREADABLE, detail=str(error)) from error
        finally:
            reading.cancel()
            stopping.cancel()
        if self._stopping.is_set():
            raise DeliveryFailed(STOPPED)
        raise DeliveryFailed(UNREADABLE, detail=f"object store: no answer within {limit:g} s")


def largest_mail(client: SMTP) -> float:
    """Return the size in bytes up to which the server takes mails, as it has announced it (RFC 1870)."""
    announced = client.esmtp_extensions.get("size", "").strip()
    return int(announced) if announced.isdecimal() and int(announced) > 0 else math.inf


def delivery_error(
    error: SMTPException | OSError, data_sent: bool
) -> DeliveryFailed | DeliveryRefused | DeliveryUncertain:
    """Return the error of a delivery.

    If the data of the mail was not sent, the mail did not arrive. If it was sent, it is not known whether the
    mail arrived, unless the server refused it. What the server says about the recipient and the mail is for
    the owner of the job; all else can name hosts and accounts of the service, and is only logged.
    """
    reply = one_line(f"{type(error).__name__}: {error}", 300)
    if isinstance(error, SMTPRecipientRefused | SMTPDataError):
        reply = one_line(f"{error.code} {error.message}", 300)
        if error.code < 500:
            return DeliveryFailed(reply)
        is_bad = isinstance(error, SMTPRecipientRefused) and _BAD_ADDRESS.match(error.message) is not None
        return DeliveryRefused(reply, bad_address=is_bad)
    if data_sent:
        return DeliveryUncertain(LOST, detail=reply)
    if isinstance(error, TimeoutError):
        return DeliveryFailed(SILENT, detail=reply)
    return DeliveryFailed(AWAY if isinstance(error, OSError) else NOT_TAKEN, detail=reply)
