"""The time-outs of a mail that the server refuses with its file, on a clock that the test moves."""

import asyncio
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, cast

import pytest
from aiosmtplib import SMTPDataError

from stream_app.notifications.channel import DeliveryFailed
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.mail import client as mails
from stream_app.notifications.mail.client import SILENT, STOPPED, MailClient
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.unit.notifications.notifications import notification

FILE = b"x" * 50_000

TIMEOUT = 3_600.0
"""So long that only the moved clock ends it."""


class Clock:
    """The clock of the event loop. What the test adds to it passes at once."""

    def __init__(self) -> None:
        self._added = 0.0

    def time(self) -> float:
        return time.monotonic() + self._added

    async def add(self, seconds: float) -> None:
        self._added += seconds
        for _ in range(3):
            await asyncio.sleep(0)  # time-outs that are due end here


class Server:
    """Refuses mails of more than 50,000 bytes. An answer to data takes as long as ``answers`` says."""

    def __init__(self, clock: Clock, answers: Iterator[float]) -> None:
        self.clock, self.answers = clock, answers
        self.sizes: list[int] = []
        self.is_connected = True
        self.esmtp_extensions: dict[str, str] = {}

    async def connect(self) -> None:
        await asyncio.sleep(0)

    async def mail(self, sender: str) -> None:
        await asyncio.sleep(0)

    async def rcpt(self, address: str) -> None:
        await self.clock.add(0)

    async def data(self, body: bytes) -> None:
        self.sizes.append(len(body))
        await self.clock.add(next(self.answers))
        if len(body) > 50_000:
            raise SMTPDataError(552, "too big")

    def close(self) -> None:
        pass


class Storage:
    """Has :data:`FILE`, which takes ``seconds`` to read."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    async def run_in_thread(self, *_: object) -> bytes:
        await self.clock.add(self.seconds)
        return FILE

    def read(self, key: str) -> None:
        raise AssertionError(key)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock.time)
    return clock


class Post:
    """A mail client, its server, and the time that it takes to build the mail without its file."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        *answers: float,
        build: float = 0,
        read: float = 0,
    ) -> None:
        settings = Settings(
            _env_file=None,
            smtp_host="mail.test",
            mail_attach_max_bytes=100_000,
            delivery_timeout_seconds=TIMEOUT,
        )
        self.server = Server(clock, iter(answers))
        self.client = MailClient(settings, DeliveryLinks(settings), cast(ObjectStore, Storage(clock, read)))
        monkeypatch.setattr(self.client, "_client", lambda: self.server)
        monkeypatch.setattr(self.client, "_build", self._built)
        self.clock, self.build, self.stops = clock, build, False

    async def _built(self, about: Any, attachment: mails.Attachment | None) -> Any:
        if attachment is None:
            if self.stops:
                self.client.interrupt()
            await self.clock.add(self.build)

        class Mail:
            def as_bytes(self) -> bytes:
                return b"link" if attachment is None else attachment.content * 2

        return Mail()

    async def send(self) -> None:
        await self.client.send(notification(file_size=50_000, sha256=sha256(FILE).hexdigest()))


@pytest.mark.parametrize("read", [0, TIMEOUT * 0.9])
async def test_the_mail_without_its_file_has_a_time_out_of_its_own(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, read: float
) -> None:
    post = Post(monkeypatch, clock, TIMEOUT * 0.8, TIMEOUT * 0.8, read=read)
    await post.send()
    assert post.server.sizes == [100_000, 4]


async def test_a_mail_that_is_built_too_long_after_a_refusal_was_certainly_not_sent(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    post = Post(monkeypatch, clock, TIMEOUT * 0.8, build=TIMEOUT * 3)
    with pytest.raises(DeliveryFailed, match=SILENT):
        await post.send()
    assert post.server.sizes == [100_000]


async def test_a_worker_that_stops_does_not_begin_the_mail_without_its_file(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """It waits for one time-out only."""
    post = Post(monkeypatch, clock, TIMEOUT * 0.8)
    post.stops = True
    with pytest.raises(DeliveryFailed, match=STOPPED):
        await post.send()
    assert post.server.sizes == [100_000]
