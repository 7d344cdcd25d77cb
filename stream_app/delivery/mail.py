"""Mails over SMTP, and what each of the server's answers means for the message."""

import asyncio
from email.message import EmailMessage
from email.utils import parseaddr

from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
)

from stream_app.delivery.content import one_line, write
from stream_app.delivery.links import Links
from stream_app.delivery.message import Attachment, mail_of
from stream_app.delivery.notice import Notice
from stream_app.delivery.transport import Refused, Uncertain, Undelivered
from stream_app.errors import Retryable
from stream_app.exports.storage import Storage
from stream_app.settings import Settings

TLS_PORT = 465

NO_SUCH_ADDRESS = frozenset({550, 551, 553, 556})
"""RFC 5321 and 7504: what is said of an address rather than of a message or of its sender."""


class Mailer:
    """Sends mails to one server, over connections that are kept while there is more to send."""

    def __init__(self, settings: Settings, links: Links, storage: Storage) -> None:
        self._settings = settings
        self._links = links
        self._storage = storage
        self._sender = parseaddr(settings.mail_from)[1]
        self._idle: list[SMTP] = []

    async def send(self, notice: Notice) -> None:
        """See :class:`~stream_app.delivery.transport.Transport`."""
        mail = await self.mail(notice)
        body = mail.as_bytes()
        client = self._idle.pop() if self._idle else self._client()
        handed_over = False
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_seconds):
                if not client.is_connected:
                    await client.connect()
                await client.mail(self._sender)
                await client.rcpt(notice.address)
                handed_over = True
                await client.data(body)
        except BaseException as error:
            client.close()
            if isinstance(error, SMTPException | OSError):
                raise _meaning(error, handed_over) from error
            raise
        self._idle.append(client)

    async def mail(self, notice: Notice) -> EmailMessage:
        """The mail that :meth:`send` sends.

        Raises:
            Undelivered: the file that is to be attached cannot be had at the moment.
        """
        unsubscribe = self._links.unsubscribe(notice.delivery_id)
        attachment = await self._attachment(notice)
        content = write(
            notice,
            link=self._links.download(notice.delivery_id),
            unsubscribe=unsubscribe,
            attached=attachment is not None,
        )
        return mail_of(
            notice,
            content,
            sender=self._settings.mail_from,
            unsubscribe=unsubscribe,
            attachment=attachment,
        )

    async def rest(self) -> None:
        """See :class:`~stream_app.delivery.transport.Transport`."""
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

    async def _attachment(self, notice: Notice) -> Attachment | None:
        size, limit = notice.file_size, self._settings.mail_attach_max_bytes
        if notice.failed or notice.file_path is None or size is None or size > limit:
            return None
        try:
            content = await self._storage.call(self._storage.read, notice.file_path)
        except Retryable as error:
            raise Undelivered(str(error)) from error
        name = one_line(notice.file_name or "export", 200)
        return Attachment(name, notice.content_type or "application/octet-stream", content)


def _meaning(error: SMTPException | OSError, handed_over: bool) -> Undelivered | Refused | Uncertain:
    """Until the server was given the mail it has certainly not taken it; afterwards only it can tell."""
    said = one_line(f"{type(error).__name__}: {error}", 300)
    if isinstance(error, SMTPRecipientRefused | SMTPDataError):
        said = one_line(f"{error.code} {error.message}", 300)
        if error.code < 500:
            return Undelivered(said)
        policy = error.message.startswith("5.7.")
        address = isinstance(error, SMTPRecipientRefused) and error.code in NO_SUCH_ADDRESS and not policy
        return Refused(said, bad_address=address)
    return Uncertain(said) if handed_over else Undelivered(said)
