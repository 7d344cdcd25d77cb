"""A mail server and a receiver of webhooks on real sockets, whose responses a test chooses."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, cast

from aiosmtpd.smtp import DATA_SIZE_DEFAULT, SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.waiting import patient

STRICT = policy.SMTP.clone(raise_on_defect=True)


@dataclass
class MailServer:
    """Stores accepted mails. ``refused`` maps a recipient, ``data`` or ``rset`` to the reply for it.

    Mails to those in ``held`` are kept, but their senders wait for the answer. A mail of more than
    ``largest`` bytes gets the answer ``too_large``.
    """

    held: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    hangs_up_after: str | None = None
    largest: float = math.inf
    too_large: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def to(self, address: str) -> list[EmailMessage]:
        """Return the mails to one recipient."""
        return [mail for mail in self.mails if mail["X-Envelope-To"] == address]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.seen.append(address)
        if answer := self.refused.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return self.refused.get("rset", "250 OK")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if answer := self.refused.get("data"):
            return answer
        content = envelope.original_content or b""
        self.sizes.append(len(content))
        if len(content) > self.largest:
            return self.too_large
        mail = BytesParser(EmailMessage, policy=STRICT).parsebytes(content)
        mail["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        self.mails.append(mail)
        if self.held & set(envelope.rcpt_tos):
            await asyncio.Event().wait()
        if self.hangs_up_after == "data":
            cast(asyncio.WriteTransport, server.transport).abort()
        return "250 kept"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        known = isinstance(data, LoginPassword) and data.password == b"right"
        self.logins.append(mechanism)
        return AuthResult(success=known, handled=False)


@asynccontextmanager
async def mail_server(
    *, port: int = 0, tls: ssl.SSLContext | None = None, login: bool = False, size: int = DATA_SIZE_DEFAULT
) -> AsyncIterator[MailServer]:
    """Run the server during the block. With ``tls`` it accepts mails only over STARTTLS.

    ``size``: the largest mail in bytes, as the server announces it.
    """
    handler = MailServer()
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        handler.connections += 1
        return SMTP(
            handler,
            loop=loop,
            hostname="mail.test",
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=handler.authenticate if login else None,
            auth_required=login,
            data_size_limit=size,
        )

    server = await loop.create_server(protocol, "127.0.0.1", port)
    handler.port = server.sockets[0].getsockname()[1]
    try:
        yield handler
    finally:
        server.close()


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve connections during the block; yield the port. At its end neither side of a connection is left."""
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[asyncio.create_task(serve(reader, writer))] = writer

    server = await asyncio.start_server(connect, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in connections.values():
            writer.transport.abort()
        if connections:
            await asyncio.wait(connections, timeout=patient(5))
            await asyncio.sleep(0.01)  # the other side notices the end


@dataclass
class Receiver:
    """Answers webhooks with the statuses in ``answers``; the last one is repeated.

    An answer can have headers, and a body after an empty line.
    """

    answers: list[str] = field(default_factory=lambda: ["204 No Content"])
    calls: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0
    _silent: list[asyncio.StreamWriter] = field(default_factory=list)

    def hang_up(self) -> None:
        """Break off the calls that wait because their answer is ``silence``, and those that come later."""
        self.answers = ["hang up"]
        for writer in self._silent:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.calls.append((head[0], headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "silence":
            self._silent.append(writer)
            await reader.read()
        elif answer == "hang up":
            writer.transport.abort()
            return
        else:
            top, _, content = answer.partition("\r\n\r\n")
            length = len(content.encode())
            writer.write(
                f"HTTP/1.1 {top}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}".encode()
            )
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def receiver(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run the receiver during the block."""
    handler = Receiver()
    async with serving(handler.serve, tls=tls) as handler.port:
        yield handler


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Run a server that accepts connections and sends nothing; yield its port."""

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with serving(wait) as port:
        yield port
