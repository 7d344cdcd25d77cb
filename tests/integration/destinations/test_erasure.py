"""The erasure of a user leaves no files of incomplete deliveries at a destination without a record."""

import asyncio
import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import text
from typer.testing import CliRunner

import stream_app.__main__ as commands
from stream_app.destinations.transfer import CHUNK, Transfer
from stream_app.jobs import erasure, partial_deliveries
from stream_app.jobs.erasure import ErasureResult, PersonalDataEraser
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from streaming_exporter.errors import Rejected, Retryable
from tests.integration.destinations.conftest import Depot, OtherStore, names, on_s3, on_sftp
from tests.sftp_servers import OpenSsh, SftpServer
from tests.waiting import WITHIN, patient, until_async

TIMEOUT = patient(1)
"""The time-out of deliveries, in seconds."""


@pytest.fixture(autouse=True)
def _short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(partial_deliveries, "POLL_SECONDS", 0.05)


class Erasing:
    """Erases the data of the user ``u``, and collects what is reported."""

    def __init__(self, depot: Depot) -> None:
        self.depot = depot
        self.reported: list[str] = []

    async def __call__(self, seconds: float = 0.0, **options: bool) -> ErasureResult:
        eraser = PersonalDataEraser(self.depot.engine, self.remove, self.reported.append)
        return await eraser.erase_user("u", wait_seconds=seconds, **options)

    async def remove(self, key: str) -> None:
        await self.depot.storage.run_in_thread(self.depot.storage.removal.remove_job, key)

    async def has_record(self, job: UUID) -> bool:
        """Whether the job still has its request and its delivery."""
        return job in await self.kept() and bool(await self.depot.row(job))

    async def kept(self) -> list[UUID]:
        """Return the jobs whose records are not erased."""
        async with self.depot.engine.connect() as connection:
            found = await connection.scalars(text("SELECT id FROM export_jobs WHERE user_id = 'u'"))
            return list(found.all())


@pytest.fixture
def erasing(depot: Depot) -> Erasing:
    return Erasing(depot)


async def begun(depot: Depot, sftp: SftpServer) -> UUID:
    """Return a job of which one of two files was sent, and which waits for the next attempt."""
    depot.use(on_sftp(sftp))
    sftp.faults(largest_file=100 * 1024)
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        await depot.tried(job)
    assert names(sftp.files(), job) == ["ledger-00001.csv"]
    return job


async def test_a_transfer_in_progress_ends_and_its_files_are_removed_before_the_record(
    depot: Depot, sftp: SftpServer, erasing: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(sftp, OpenSsh), "install openssh-server"
    content, is_halted, running = Transfer._content, Event(), []

    def halt_after_two(transfer: Transfer, *arguments: Any) -> Iterator[bytes]:
        for number, chunk in enumerate(content(transfer, *arguments)):
            if number == 2 and not is_halted.is_set():
                sftp.signal(signal.SIGSTOP)
                running.append(transfer)
                is_halted.set()
            yield chunk

    monkeypatch.setattr(Transfer, "_content", halt_after_two)
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"small", b"x" * 4 * CHUNK)
    try:
        async with depot.working(delivery_timeout_seconds=TIMEOUT):
            await until_async(is_halted.is_set)
            assert "ledger-00001.csv" in names(sftp.files(), job)
            erasure_of_user = asyncio.create_task(erasing(patient(WITHIN)))
            await until_async(running[0].stopped.is_set)
            assert await erasing.has_record(job), "only it says where the files are"
            sftp.signal(signal.SIGCONT)
            done = await erasure_of_user
    finally:
        sftp.signal(signal.SIGCONT)
    assert (done.jobs, done.left) == (1, ())
    assert sftp.files() == {}
    assert not await erasing.has_record(job)
    assert erasing.reported == ["Waiting until the files of 1 deliveries are removed from acme …"]


async def test_files_of_an_attempt_that_failed_are_removed_without_its_delay(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    job = await begun(depot, sftp)
    await depot.run("UPDATE deliveries SET not_before = now() + interval '1 day'")
    async with depot.working():
        assert (await erasing(patient(WITHIN))).jobs == 1
    assert sftp.files() == {}
    assert not await erasing.has_record(job)


async def test_a_record_stays_until_its_files_are_removed_or_given_up(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    job = await begun(depot, sftp)
    other = await depot.job("acme", b"a")
    await depot.run("DELETE FROM deliveries WHERE job_id = :id", id=other)
    place = f"acme, in/ledger/date=2026-11-26/{job}/ledger-00001.csv (job {job}"
    sftp.faults(refused="remove")
    async with depot.working():
        for attempts in (2, 3):  # a second erasure tries again
            with pytest.raises(Rejected) as caught:
                await erasing(patient(WITHIN))
            assert caught.value.code == "files_left"
            assert place in str(caught.value)
            row = await depot.row(job)
            assert (row.status, row.attempts) == ("failed", attempts)
    assert await erasing.has_record(job)
    assert await erasing.kept() == [job], "all other jobs are erased"
    sftp.faults()
    async with depot.working():
        assert (await erasing(patient(WITHIN))).jobs == 1
    assert sftp.files() == {}


async def test_files_that_are_given_up_are_named_before_their_record_is_erased(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    job = await begun(depot, sftp)
    done = await erasing(leave_files=True)  # no worker runs
    assert [(item.job_id, item.destination) for item in done.left] == [(str(job), "acme")]
    assert erasing.reported == [f"Left at {done.left[0]}"]
    assert f"{job}/ledger-00001.csv" in erasing.reported[0]
    assert not await erasing.has_record(job)


async def test_files_at_the_earlier_place_of_a_destination_that_was_moved_are_named(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    job = await begun(depot, sftp)
    old = f"in/ledger/date=2026-11-26/{job}/ledger-00001.csv"
    sftp.faults()
    depot.use(on_sftp(sftp, prefix="new"))
    await depot.hurry()
    with structlog.testing.capture_logs() as logs:
        row = await depot.sent(job)
    assert row.status == "sent"
    moved = [line for line in logs if line["event"] == "delivery.moved"]
    assert [(line["files"], line["paths"]) for line in moved] == [(1, [old])]
    with pytest.raises(Rejected, match="before the destination was moved") as caught:
        await erasing()
    assert (caught.value.code, old in str(caught.value)) == ("files_left", True)
    assert await erasing.has_record(job)
    assert (await depot.row(job)).status == "sent", "a set that is complete belongs to its receiver"
    done = await erasing(leave_files=True)
    assert [(item.path, item.elsewhere) for item in done.left] == [(None, (old,))]
    assert not await erasing.has_record(job)


async def test_files_that_are_found_under_another_name_of_the_host_are_in_doubt(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    """It can be the same host, or a new one to which they were copied. The same holds for another user."""
    job = await begun(depot, sftp)
    old = f"in/ledger/date=2026-11-26/{job}/ledger-00001.csv"
    sftp.faults()
    depot.use(on_sftp(sftp, host="localhost"))
    await depot.hurry()
    with structlog.testing.capture_logs() as logs:
        row = await depot.sent(job)
    assert [(item["path"], item["found"]) for item in row.progress["left"]] == [(old, True)]
    assert (row.status, [line for line in logs if line["event"] == "delivery.moved"]) == ("sent", [])
    with pytest.raises(Rejected, match=f"{old} .possibly also where the destination was before") as caught:
        await erasing()
    assert (caught.value.code, await erasing.has_record(job)) == ("files_left", True)
    done = await erasing(leave_files=True)
    assert [(item.path, item.elsewhere, item.in_doubt) for item in done.left] == [(None, (), (old,))]
    assert not await erasing.has_record(job)


async def test_progress_is_recorded_while_no_older_one_is_on_its_way(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a renewal of the claim that waits for the database could replace the result of a look."""
    job = await begun(depot, sftp)
    run, renew = Transfer.run, Outbox.renew
    running: list[Transfer] = []
    recorded: list[tuple[bool | None, int, bool]] = []

    def noted(transfer: Transfer) -> None:
        running.append(transfer)
        run(transfer)

    async def watched(outbox: Outbox, *arguments: Any) -> bool:
        recorded.extend((sent.is_same_place, sent.done, sent.recording.locked()) for sent in running)
        return await renew(outbox, *arguments)

    monkeypatch.setattr(Transfer, "run", noted)
    monkeypatch.setattr(Outbox, "renew", watched)
    sftp.faults()
    depot.use(on_sftp(sftp, host="localhost"))
    await depot.hurry()
    assert (await depot.sent(job)).status == "sent"
    assert {(True, 0), (True, 1), (True, 2)} <= {(looked, files) for looked, files, _ in recorded}
    assert all(is_held for _, _, is_held in recorded)


async def test_equal_content_at_a_shared_path_is_no_proof_of_the_same_place(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    """Another job, whose table has not changed, has written the same there."""
    shared = {"path": "{dataset}/{file_name}"}
    depot.use(on_sftp(sftp, **shared))
    sftp.faults(largest_file=100 * 1024)
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        old = (await depot.tried(job)).progress["path"]
    sftp.faults()
    depot.use(on_sftp(sftp, host="localhost", **shared))
    await depot.hurry()
    with structlog.testing.capture_logs() as logs:
        assert (await depot.sent(job)).status == "sent"
    assert [line["paths"] for line in logs if line["event"] == "delivery.moved"] == [[old]]
    with pytest.raises(Rejected, match="before the destination was moved"):
        await erasing()


async def test_files_on_another_host_with_the_same_path_are_named(
    depot: Depot, sftp: SftpServer, other_store: OtherStore, tmp_path: Path, erasing: Erasing
) -> None:
    """A second attempt, which finds its own files at the path, does not take them for those."""
    job = await begun(depot, sftp)
    old = f"in/ledger/date=2026-11-26/{job}/ledger-00001.csv"
    moved = on_s3(other_store, tmp_path)
    depot.use(moved)
    await depot.hurry()
    assert (await depot.sent(job)).status == "sent"
    await depot.run("UPDATE deliveries SET status = 'pending', not_before = now() WHERE job_id = :id", id=job)
    row = await depot.sent(job)
    assert (row.status, row.attempts, row.progress["path"]) == ("sent", 3, old)
    assert [(item["files"], item["path"]) for item in row.progress["left"]] == [(1, old)]
    with pytest.raises(Rejected, match="before the destination was moved"):
        await erasing()


async def test_the_command_names_what_is_left_and_fails_unless_it_may_leave_it(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await begun(depot, sftp)
    monkeypatch.setattr(commands, "CANCEL_SECONDS", 0)
    monkeypatch.setattr(commands, "_settings", lambda: depot.settings)
    forget = ["forget", "--user-id", "u", "--yes", "--json"]
    failed = await asyncio.to_thread(CliRunner().invoke, commands.cli, forget)
    assert failed.exit_code == 1
    error = json.loads(failed.stderr)["error"]
    assert error["code"] == "files_left"
    assert f"{job}/ledger-00001.csv" in error["message"]
    done = await asyncio.to_thread(CliRunner().invoke, commands.cli, [*forget, "--leave-files"])
    assert done.exit_code == 0, done.output
    (left,) = json.loads(done.stdout)["left"]
    assert (left["job_id"], left["destination"]) == (str(job), "acme")
    assert f"{job}/ledger-00001.csv" in done.stderr


async def test_an_erasure_that_is_ended_while_it_waits_is_completed_by_the_next_one(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    job = await begun(depot, sftp)
    first = asyncio.create_task(erasing(patient(WITHIN)))
    await until_async(lambda: bool(erasing.reported))
    first.cancel()
    await asyncio.wait({first})
    assert await erasing.has_record(job)
    async with depot.working():
        assert (await erasing(patient(WITHIN))).jobs == 1
    assert sftp.files() == {}


async def test_a_delivery_that_is_claimed_during_an_erasure_keeps_its_record(
    depot: Depot, sftp: SftpServer, erasing: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker claims it while the files of the job are removed from the bucket."""
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"b")
    remove = erasing.remove

    async def claim_before(key: str) -> None:
        await Outbox(depot.engine, worker="w", lease=timedelta(hours=1)).claim(Channel.DESTINATION, 9)
        await remove(key)

    monkeypatch.setattr(erasing, "remove", claim_before)
    with pytest.raises(Rejected, match="acme"):
        await erasing()
    assert await erasing.has_record(job)


async def test_a_delivery_that_has_not_begun_delays_no_erasure(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a")
    assert (await erasing()).jobs == 1
    assert not await erasing.has_record(job)


async def test_sets_that_were_sent_and_sets_that_were_removed_delay_no_erasure(
    depot: Depot, sftp: SftpServer, erasing: Erasing
) -> None:
    removed = await begun(depot, sftp)
    await depot.give_up(removed)
    await depot.hurry()
    async with depot.working():
        assert (await depot.ended(removed)).status == "failed"
    sftp.faults()
    sent = await depot.job("acme", b"a")
    await depot.hurry()  # the server has refused a file
    assert (await depot.sent(sent)).status == "sent"
    assert (await erasing()).jobs == 2
    assert names(sftp.files(), sent) == ["ledger.csv"], "a complete set belongs to its receiver"


async def test_no_file_is_written_before_the_start_is_on_record(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not on record would never be removed. The state database is away for a moment."""
    renew, failures = Outbox.renew, [Retryable("away")]

    async def fail_once(self: Outbox, *arguments: Any) -> bool:
        if failures:
            raise failures.pop()
        return await renew(self, *arguments)

    monkeypatch.setattr(Outbox, "renew", fail_once)
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a")
    async with depot.working():
        row = await depot.tried(job)
        assert row.reason == "the start of the delivery cannot be recorded"
        assert sftp.files() == {}
        await depot.hurry()
        assert (await depot.ended(job)).status == "sent"
