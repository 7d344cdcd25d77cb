"""A server that halts in the middle of a file: deliveries keep their leases, and end or go on in order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from threading import Event
from typing import Any
from uuid import UUID

import pytest

from stream_app.destinations.errors import DestinationError
from stream_app.destinations.sftp import SftpSession
from stream_app.destinations.transfer import CHUNK, Transfer
from tests.integration.destinations.conftest import Depot, names, on_sftp
from tests.sftp_servers import OpenSsh, SftpServer
from tests.waiting import patient, until_async

TIMEOUT = patient(1)
"""The time-out of deliveries, in seconds."""

LARGE = b"x" * 4 * CHUNK
"""The server halts when it has two of its chunks."""


class Halt(Event):
    """Is set when the server is halted in the middle of a file. ``transfer`` sends that file."""

    transfer: Transfer


@asynccontextmanager
async def halting(depot: Depot, sftp: SftpServer) -> AsyncIterator[OpenSsh]:
    """Use the server as the destination. At the end it goes on if it was halted."""
    assert isinstance(sftp, OpenSsh), "install openssh-server"
    depot.use(on_sftp(sftp))
    yield sftp
    sftp.signal(signal.SIGCONT)


@pytest.fixture
def is_halted(sftp: SftpServer, monkeypatch: pytest.MonkeyPatch) -> Halt:
    """Halt the server once, when it has the first two chunks of a file. Set the event then."""
    content, event = Transfer._content, Halt()

    def halt_after_two(transfer: Transfer, *arguments: Any) -> Iterator[bytes]:
        for number, chunk in enumerate(content(transfer, *arguments)):
            if number == 2 and not event.is_set():
                assert isinstance(sftp, OpenSsh)
                sftp.signal(signal.SIGSTOP)
                event.transfer = transfer
                event.set()
            yield chunk

    monkeypatch.setattr(Transfer, "_content", halt_after_two)
    return event


async def test_a_slow_server_keeps_its_delivery_for_longer_than_a_lease(
    depot: Depot, sftp: SftpServer, is_halted: Halt
) -> None:
    async with halting(depot, sftp) as server:
        job = await depot.job("acme", LARGE)
        async with depot.working(2, recovers=True, delivery_timeout_seconds=TIMEOUT):
            await until_async(is_halted.is_set)
            first = (await depot.row(job)).lease_until
            await until_async(lambda: _renewed(depot, job, first))
            server.signal(signal.SIGCONT)
            row = await depot.ended(job)
    assert (row.status, row.attempts) == ("sent", 1)
    assert row.progress["bytes"] == len(LARGE)
    assert names(sftp.files(), job) == ["ledger.csv"]


async def _renewed(depot: Depot, job: object, first: object) -> bool:
    return bool((await depot.row(job)).lease_until > first)  # type: ignore[arg-type]


async def test_a_removed_job_ends_its_transfer_and_leaves_no_file(
    depot: Depot, sftp: SftpServer, is_halted: Halt
) -> None:
    async with halting(depot, sftp) as server:
        job = await depot.job("acme", b"small", LARGE)
        async with depot.working(delivery_timeout_seconds=TIMEOUT):
            await until_async(is_halted.is_set)
            assert "ledger-00001.csv" in names(sftp.files(), job)
            await depot.run(
                "UPDATE export_jobs SET cancel_requested_at = now(), expires_at = now() WHERE id = :id",
                id=job,
            )
            first = (await depot.row(job)).lease_until
            await until_async(is_halted.transfer.stopped.is_set)  # by the next renewal, which is refused
            assert (await depot.row(job)).lease_until == first
            server.signal(signal.SIGCONT)
            await depot.tried(job)
            await depot.hurry()
            row = await depot.ended(job)
    assert (row.status, row.reason) == ("failed", "the file has expired")
    assert sftp.files() == {}


async def test_a_worker_that_stops_hands_its_transfer_over(
    depot: Depot, sftp: SftpServer, is_halted: Halt
) -> None:
    async with halting(depot, sftp) as server:
        job = await depot.job("acme", b"small", LARGE)
        async with depot.working():
            await until_async(is_halted.is_set)
            assert names(sftp.files(), job)[1] == "ledger-00001.csv"
            going_on = asyncio.create_task(_go_on(server, is_halted.transfer.stopped))
        await going_on
        row = await depot.row(job)
        assert (row.status, row.progress["files"]) == ("pending", 1)
        assert "worker was stopped" in row.reason
        await depot.hurry()
        row = await depot.sent(job)
    assert (row.status, row.attempts) == ("sent", 2)
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


async def _go_on(server: OpenSsh, stopped: Event) -> None:
    """Let the server go on when the transfer is stopped, so that it cannot end before."""
    await until_async(stopped.is_set)
    server.signal(signal.SIGCONT)


async def test_a_removal_keeps_its_delivery_for_longer_than_a_lease(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker must not send the files while they are removed."""
    remove = SftpSession.remove

    def halt(self: SftpSession, path: str) -> None:
        server.signal(signal.SIGSTOP)
        remove(self, path)

    async with halting(depot, sftp) as server:
        sftp.faults(largest_file=100 * 1024)
        job = await depot.job("acme", b"small", b"x" * 300_000)
        async with depot.working(delivery_timeout_seconds=TIMEOUT):
            await depot.tried(job)
        sftp.faults()
        await depot.give_up(job)
        await depot.hurry()
        monkeypatch.setattr(Transfer, "run", refuse_transfer)
        monkeypatch.setattr(SftpSession, "remove", halt)
        async with depot.working(2, recovers=True, delivery_timeout_seconds=TIMEOUT):
            await until_async(lambda: _is_removing(depot, job))
            first = (await depot.row(job)).lease_until
            await until_async(lambda: _renewed(depot, job, first))
            monkeypatch.undo()
            server.signal(signal.SIGCONT)
            row = await depot.ended(job)
    assert (row.status, row.attempts) == ("failed", 2)
    assert sftp.files() == {}


def refuse_transfer(transfer: Transfer) -> None:
    raise DestinationError("the destination is full")


async def _is_removing(depot: Depot, job: UUID) -> bool:
    row = await depot.row(job)
    return bool(row.status == "sending" and row.progress["files"] == 0)
