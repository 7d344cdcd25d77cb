"""SMTP: a server that stores every mail as a file, and the service that runs it.

``python -m dev.smtp PORT FOLDER`` is the child process.
"""

import asyncio
import smtplib
import sys
import time
from collections.abc import Mapping
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from dev.process import Child, free_ports
from dev.service import Service


class SmtpService(Service):
    """A mail server on the loopback interface; it forwards no mail."""

    name = "smtp"

    def choose_ports(self) -> None:
        (self.port,) = free_ports(1)

    def prepare(self) -> None:
        self.mail_dir.mkdir(parents=True, exist_ok=True)

    def spawn(self) -> Child:
        argv: list[str | Path] = [sys.executable, "-m", "dev.smtp", str(self.port), self.mail_dir]
        # Python imports from the current folder first, and that of a user can hold a `dev`, too.
        return Child(self.name, argv, self.log, cwd=Path(__file__).parents[1])

    def is_ready(self) -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=2) as client:
                return client.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False

    def settings(self) -> Mapping[str, str]:
        return {"EXPORTER_SMTP_HOST": "127.0.0.1", "EXPORTER_SMTP_PORT": str(self.port)}

    @property
    def address(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def mail_dir(self) -> Path:
        """The folder of the mails, one ``.eml`` file each."""
        return self.data_dir / "mails"

    def mails(self) -> list[EmailMessage]:
        """Return all mails, oldest first. ``X-Envelope-To`` has the recipients of the SMTP call."""
        return read_mails(self.mail_dir)


def read_mails(folder: Path) -> list[EmailMessage]:
    """Return the mails in ``folder``, oldest first."""
    parser = BytesParser(EmailMessage, policy=policy.default)
    return [parser.parsebytes(path.read_bytes()) for path in sorted(folder.glob("*.eml"))]


class _Keep:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self._count += 1
        path = self._folder / f"{time.time_ns()}-{self._count}.eml"
        head = f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {', '.join(envelope.rcpt_tos)}\r\n"
        part = path.with_suffix(".part")
        part.write_bytes(head.encode() + (envelope.original_content or b""))
        part.rename(path)  # no reader sees an incomplete mail
        return "250 kept"


async def _serve(port: int, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    handler = _Keep(folder)
    server = await loop.create_server(
        lambda: SMTP(handler, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
