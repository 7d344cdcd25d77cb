"""Deliveries of jobs that share a path: one at a time writes there, and none removes the files of others."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import text

from stream_app.datasets.destinations import Destination, S3Destination
from stream_app.destinations.errors import (
    AWAY,
    FAILED,
    IN_USE,
    NEVER,
    NOT_PERMITTED,
    NOT_REMOVED,
    DestinationError,
)
from stream_app.destinations.progress import place_of
from stream_app.destinations.s3 import S3Session
from stream_app.destinations.sftp import SftpSession
from stream_app.destinations.transfer import Transfer
from stream_app.notifications.models import Channel
from stream_app.notifications.notification import Notification
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.shared_paths import OthersAtPath
from stream_app.retries import retry_until_possible
from tests.integration.destinations.conftest import DAY, Depot, OtherStore, on_s3, on_sftp
from tests.sftp_servers import SftpServer

SHARED = "{dataset}-{number}.{extension}"
LATER = DAY + timedelta(hours=1)
REPLACED = "replaced by a newer export, which has the same path"
BUSY = "another export is being sent to the same path"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Destination, Any]:
    """A destination whose jobs share paths, and what returns its files.

    An object store, unless a test names "sftp": what a session of SFTP does has rows of its own.
    """
    store: SftpServer | OtherStore
    if getattr(request, "param", "s3") == "sftp":
        store = request.getfixturevalue("sftp")
        assert isinstance(store, SftpServer)
        return on_sftp(store, path=SHARED, manifest="never"), store
    store = request.getfixturevalue("other_store")
    assert isinstance(store, OtherStore)
    return on_s3(store, tmp_path, path=SHARED, manifest="never"), store


async def tried_before(depot: Depot, job: UUID, destination: Destination, **progress: Any) -> None:
    """Let an attempt of a delivery have ended with this progress."""
    known = {"place": place_of(destination), "zone": "UTC", "path": "in/ledger-1.csv", **progress}
    await depot.run(
        "UPDATE deliveries SET attempts = 1, progress = CAST(:p AS jsonb) WHERE job_id = :id",
        id=job,
        p=json.dumps(known),
    )


async def send_on(depot: Depot, job: UUID) -> None:
    """Let the last attempt of a delivery be still in progress."""
    await depot.run(
        """
        UPDATE deliveries SET status = 'sending', lease_until = now() + interval '1 hour'
        WHERE job_id = :id
        """,
        id=job,
    )


ENDS = ["replaced", "expired", "given up", "expired at another name of the host"]


@pytest.mark.parametrize(
    ("place", "end", "writing"),
    [
        *(("s3", end, writing) for end in ENDS for writing in (0, 1)),
        ("sftp", "expired", 1),
        ("sftp", "expired at another name of the host", 1),
    ],
    indirect=["place"],
)
async def test_the_file_of_a_sent_job_stays_when_another_one_with_equal_content_ends(
    depot: Depot, place: tuple[Destination, Any], monkeypatch: pytest.MonkeyPatch, writing: int, end: str
) -> None:
    destination, store = place
    depot.use(destination)
    is_older = end == "replaced"
    sent = await depot.job("acme", b"equal", created_at=LATER if is_older else DAY)
    assert (await depot.sent(sent)).status == "sent"
    other = await depot.job("acme", b"equal", b"more", created_at=DAY if is_older else LATER)
    if is_renamed := "name" in end:
        destination = renamed(destination)
        depot.use(destination)
    await tried_before(depot, other, destination, files=writing, writing=writing)
    if end.startswith("expired"):
        await depot.run("UPDATE export_jobs SET expires_at = now() WHERE id = :id", id=other)
    elif end == "given up":
        await depot.give_up(other)

        def fail(_: Transfer) -> None:
            raise OSError("no reason")

        monkeypatch.setattr(Transfer, "run", fail)
    row = await depot.sent(other)
    assert row.status == "failed"
    assert ("could not be removed" in row.reason) is (is_renamed and bool(writing))
    assert (row.reason == REPLACED) is is_older
    assert store.files() == {"in/ledger-1.csv": b"equal"}


async def test_files_stay_when_a_job_ends_while_another_one_is_being_sent_to_their_paths(
    depot: Depot, sftp: SftpServer
) -> None:
    destination = on_sftp(sftp, path=SHARED, manifest="never")
    depot.use(destination)
    writing = await depot.job("acme", b"equal", b"more", created_at=LATER)
    assert (await depot.sent(writing)).status == "sent"
    await send_on(depot, writing)
    gone = await depot.job("acme", b"equal", b"more")
    await tried_before(depot, gone, destination, files=2, writing=1)
    await depot.run("UPDATE export_jobs SET expires_at = now() WHERE id = :id", id=gone)
    assert (await depot.sent(gone)).status == "failed"
    assert sftp.files() == {"in/ledger-1.csv": b"equal", "in/ledger-2.csv": b"more"}


async def claimed(depot: Depot, *jobs: UUID) -> tuple[Outbox, list[Notification]]:
    """Claim the deliveries of jobs; return them in the order of the jobs."""
    outbox = Outbox(depot.engine, worker="w", lease=timedelta(hours=1))
    found = {item.job_id: item for item in await outbox.claim(Channel.DESTINATION, len(jobs))}
    return outbox, [found[job] for job in jobs]


PROGRESS = {"place": "p", "path": "a.csv", "zone": "UTC"}


async def begun(outbox: Outbox, item: Notification) -> OthersAtPath:
    """Let a delivery begin; repeat it if the machine is so busy that the lock is not got in time.

    Each worker has another name of the host.
    """
    return await retry_until_possible(
        outbox.begin_at_path, item, {**PROGRESS, "place": item.delivery_id.hex, "bucket": ""}
    )


async def test_exactly_one_of_several_deliveries_that_start_together_begins(
    depot: Depot, sftp: SftpServer
) -> None:
    """The others wait, and begin when its claim has ended, also without its end."""
    depot.use(on_sftp(sftp))
    outbox, items = await claimed(depot, *[await depot.job("acme", b"a") for _ in range(4)])
    found = await asyncio.gather(*(begun(outbox, item) for item in items))
    assert sorted((item.is_held, item.is_writing) for item in found) == [(False, True)] * 3 + [(True, False)]
    first = next(item for item, others in zip(items, found, strict=True) if others.is_held)
    await depot.run(
        "UPDATE deliveries SET lease_until = now() - interval '1 second' WHERE id = :id", id=first.delivery_id
    )
    left = [item for item in items if item is not first]
    found = await asyncio.gather(*(begun(outbox, item) for item in left))
    assert sorted(item.is_held for item in found) == [False, False, True]
    assert not await outbox.renew(first, PROGRESS)  # its worker was frozen, and another job writes now


async def test_an_attempt_that_has_not_begun_keeps_no_other_one_from_the_path(
    depot: Depot, sftp: SftpServer
) -> None:
    """Two deliveries that are retried at the same time must not wait for each other."""
    depot.use(on_sftp(sftp))
    jobs = [await depot.job("acme", b"a") for _ in range(2)]
    await depot.run("UPDATE deliveries SET attempts = 1")
    outbox, (first, second) = await claimed(depot, *jobs)
    for item in (first, second):  # the attempts before have written
        assert await outbox.record(item, {**PROGRESS, "writing": 1})
    assert (await outbox.begin_at_path(first, PROGRESS)).is_held
    assert not (await outbox.begin_at_path(second, PROGRESS)).is_held


async def test_a_delivery_that_waits_for_another_one_leaves_the_back_off_of_the_host(
    depot: Depot, sftp: SftpServer
) -> None:
    destination = on_sftp(sftp, path=SHARED, manifest="never")
    depot.use(destination)
    writing = await depot.job("acme", b"a")
    await depot.sent(writing)
    await send_on(depot, writing)
    waiting = await depot.job("acme", b"a")
    await depot.run("INSERT INTO receiver_hosts VALUES ('destination:acme', 3, now() - interval '1 second')")
    async with depot.working():
        assert (await depot.tried(waiting)).reason == BUSY
    async with depot.engine.connect() as connection:
        assert await connection.scalar(text("SELECT failures FROM receiver_hosts")) == 3


@pytest.mark.parametrize("wrote", [True, False])
async def test_complete_files_are_read_again_only_if_another_job_has_written_to_their_paths(
    depot: Depot, sftp: SftpServer, wrote: bool
) -> None:
    """A job that has failed since then can have replaced and removed them."""
    destination = on_sftp(sftp, path=SHARED, manifest="never")
    depot.use(destination)
    other = await depot.job("acme", b"x")
    await tried_before(depot, other, destination, writing=int(wrote))
    await depot.run("UPDATE deliveries SET status = 'failed', finished_at = now() + interval '1 hour'")
    job = await depot.job("acme", b"a", b"b", created_at=LATER)
    await tried_before(depot, job, destination, files=1, writing=1)
    assert (await depot.sent(job)).status == "sent"
    assert sftp.files() == {"in/ledger-2.csv": b"b"} | ({"in/ledger-1.csv": b"a"} if wrote else {})


def listed_job(files: dict[str, bytes]) -> str:
    """Return the id of the job whose manifest is at the shared path."""
    return str(json.loads(files["in/latest.json"])["job_id"])


@pytest.fixture
def pointer(other_store: OtherStore, tmp_path: Path) -> tuple[Destination, OtherStore]:
    """A destination where jobs share only the path of the manifest, and what returns its files."""
    paths = {"path": "{job_id}/{file_name}", "manifest": "always", "manifest_path": "latest.json"}
    return on_s3(other_store, tmp_path, **paths), other_store


def renamed(destination: Destination) -> Destination:
    """Return the same place with another name of its host."""
    if isinstance(destination, S3Destination):
        assert destination.endpoint is not None
        address = destination.endpoint.replace("127.0.0.1", "localhost")
        assert address != destination.endpoint
        return destination.model_copy(update={"endpoint": address})
    return destination.model_copy(update={"host": "localhost"})


@pytest.mark.parametrize(
    ("place", "path", "is_renamed", "others"),
    [
        ("sftp", SHARED, False, [6]),
        ("s3", "{dataset}/date={date}/{file_name}", False, [6]),
        ("s3", SHARED, True, [6]),
        ("s3", SHARED, True, [3, 5]),  # as on another machine
        ("sftp", SHARED, True, [3, 5]),
    ],
    indirect=["place"],
)
async def test_a_smaller_set_leaves_no_file_of_a_larger_one(
    depot: Depot, place: tuple[Destination, Any], path: str, is_renamed: bool, others: list[int]
) -> None:
    destination, store = place
    destination = destination.model_copy(update={"path": path})
    depot.use(destination)
    larger = await depot.job("acme", *(b"a%d" % number for number in range(5)))
    assert (await depot.sent(larger)).status == "sent"
    keys = sorted(store.files())
    kept = {keys[0].replace("1.csv", f"{number}.csv"): b"of the receiver" for number in others}
    for key, content in kept.items():
        await asyncio.to_thread(add, store, key, content)
    if is_renamed:
        depot.use(renamed(destination))
    smaller = await depot.job("acme", b"b1", b"b2", created_at=DAY + timedelta(minutes=1))
    assert (await depot.sent(smaller)).status == "sent"
    sent = {keys[0]: b"b1", keys[1]: b"b2", **kept}
    assert store.files() == sent
    if is_renamed:
        depot.use(destination)
        older = await depot.job("acme", b"a1", b"a2")
        assert (await depot.sent(older)).reason == REPLACED
        assert store.files() == sent


@pytest.mark.parametrize("place", ["s3", "sftp"], indirect=True)
async def test_a_newer_job_that_was_sent_to_another_machine_replaces_no_older_one(
    depot: Depot, place: tuple[Destination, Any]
) -> None:
    destination, store = place
    depot.use(destination)
    newer = await depot.job("acme", b"new", created_at=LATER)
    assert (await depot.sent(newer)).status == "sent"
    store.clear()
    depot.use(renamed(destination))
    older = await depot.job("acme", b"old")
    assert (await depot.sent(older)).status == "sent"
    assert store.files() == {"in/ledger-1.csv": b"old"}


async def test_the_files_that_a_failed_job_is_not_known_to_have_sent_are_compared(
    depot: Depot, place: tuple[Destination, Any]
) -> None:
    """Its worker has possibly died before it could record the last file."""
    destination, store = place
    depot.use(destination)
    failed = await depot.job("acme", b"a1", b"a2", b"a3", b"a4")
    await tried_before(depot, failed, destination, files=2, writing=1)
    await depot.run("UPDATE deliveries SET status = 'failed', finished_at = now()")
    for number, content in ((2, b"x"), (4, b"of the receiver")):
        await asyncio.to_thread(add, store, f"in/ledger-{number}.csv", content)
    smaller = await depot.job("acme", b"b1", created_at=LATER)
    assert (await depot.sent(smaller)).status == "sent"
    assert store.files() == {"in/ledger-1.csv": b"b1", "in/ledger-4.csv": b"of the receiver"}


async def test_a_smaller_set_leaves_no_file_on_a_server_that_says_nothing_of_its_files(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, path="{dataset}/" + SHARED, manifest="never"))
    sftp.faults(refused="stat,lstat,fstat")
    for minutes, contents in enumerate([(b"a1", b"a2", b"a3"), (b"b1",)]):
        job = await depot.job("acme", *contents, created_at=DAY + timedelta(minutes=minutes))
        assert (await depot.sent(job)).status == "sent"
    assert sftp.files() == {"in/ledger/ledger-1.csv": b"b1"}


async def test_a_smaller_set_leaves_files_that_no_job_has_sent(
    depot: Depot, place: tuple[Destination, Any]
) -> None:
    destination, store = place
    depot.use(destination)
    await asyncio.to_thread(add, store, "in/ledger-3.csv", b"of the receiver")
    job = await depot.job("acme", b"b1", b"b2")
    assert (await depot.sent(job)).status == "sent"
    assert store.files() == {
        "in/ledger-1.csv": b"b1",
        "in/ledger-2.csv": b"b2",
        "in/ledger-3.csv": b"of the receiver",
    }


@pytest.mark.parametrize(
    "error",
    [
        DestinationError(NOT_PERMITTED),
        DestinationError(FAILED),
        DestinationError(NEVER, is_permanent=True),
        DestinationError(AWAY),
        DestinationError(FAILED, affects_all=False, is_busy=True),
        DestinationError(NOT_REMOVED, affects_all=False, is_possibly_busy=True),
    ],
    ids=str,
)
async def test_a_smaller_set_is_sent_where_no_removal_is_permitted_and_waits_for_one_that_fails(
    depot: Depot, place: tuple[Destination, Any], monkeypatch: pytest.MonkeyPatch, error: DestinationError
) -> None:
    destination, store = place
    is_locked = error.is_busy or error.is_possibly_busy
    waits = str(error) == AWAY or is_locked
    depot.use(destination)
    larger = await depot.job("acme", b"a1", b"a2", b"a3")
    assert (await depot.sent(larger)).status == "sent"
    smaller = await depot.job("acme", b"b1", created_at=LATER)

    def refuse(self: object, path: str) -> None:
        raise error

    monkeypatch.setattr(S3Session, "remove", refuse)
    monkeypatch.setattr(SftpSession, "remove", refuse)
    with structlog.testing.capture_logs() as logs:
        async with depot.working():
            row = await (depot.tried(smaller) if waits else depot.ended(smaller))
    assert row.status == ("pending" if waits else "sent")
    assert (row.reason == IN_USE, row.progress.get("waits", 0)) == (is_locked, int(is_locked))
    left = [line["files"] for line in logs if line["event"] == "delivery.surplus_left"]
    assert left == ([] if waits else [2])
    monkeypatch.undo()
    if waits:
        await depot.hurry()
        assert (await depot.sent(smaller)).status == "sent"
        assert store.files() == {"in/ledger-1.csv": b"b1"}


async def test_what_was_removed_once_is_not_removed_again_where_keys_can_only_write(
    depot: Depot, place: tuple[Destination, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such keys do not tell what is there, so a removal is the only way to know it."""
    destination, store = place
    depot.use(destination)
    calls: list[str] = []
    refused = True
    for session in (S3Session, SftpSession):
        monkeypatch.setattr(session, "exists", lambda *_: None)

        def remove(self: Any, path: str, real: Any = session.remove) -> None:
            calls.append(path)
            if refused:
                raise DestinationError(NOT_PERMITTED)
            real(self, path)

        monkeypatch.setattr(session, "remove", remove)

    async def removed(*contents: bytes, minutes: int) -> list[str]:
        calls.clear()
        job = await depot.job("acme", *contents, created_at=LATER + timedelta(minutes=minutes))
        await tried_before(depot, job, destination, alone=True)  # what it has removed others have replaced
        assert (await depot.sent(job)).status == "sent"
        return [path.partition("-")[2] for path in calls]

    assert await removed(b"a1", b"a2", b"a3", b"a4", b"a5", minutes=1) == []
    assert await removed(b"b1", b"b2", minutes=2) == ["5.csv"]
    assert await removed(b"c1", minutes=3) == ["5.csv"]
    refused = False
    assert await removed(b"d1", b"d2", b"d3", minutes=4) == ["5.csv", "4.csv"]
    assert await removed(b"e1", minutes=5) == ["3.csv", "2.csv"]
    assert await removed(b"f1", minutes=6) == []
    assert await removed(b"g1", b"g2", minutes=7) == []
    assert await removed(b"h1", minutes=8) == ["2.csv"]
    assert store.files() == {"in/ledger-1.csv": b"h1"}


def add(store: Any, path: str, content: bytes) -> None:
    """Store a file without the service."""
    if isinstance(store, OtherStore):
        store.put(path, content)
    else:
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).write_bytes(content)


async def test_the_list_of_a_newer_job_stays_when_an_older_one_is_sent(
    depot: Depot, pointer: tuple[Destination, OtherStore]
) -> None:
    """The files of both have their own paths, so both are sent."""
    destination, store = pointer
    depot.use(destination)
    newer = await depot.job("acme", b"new", created_at=LATER)
    assert (await depot.sent(newer)).status == "sent"
    older = await depot.job("acme", b"old")
    with structlog.testing.capture_logs() as logs:
        assert (await depot.sent(older)).status == "sent"
    assert [line["path"] for line in logs if line["event"] == "delivery.manifest_kept"] == ["in/latest.json"]
    files = store.files()
    assert (files[f"in/{older}/ledger.csv"], files[f"in/{newer}/ledger.csv"]) == (b"old", b"new")
    assert listed_job(files) == str(newer)
    newest = await depot.job("acme", b"newest", created_at=LATER + timedelta(hours=1))
    assert (await depot.sent(newest)).status == "sent"
    assert listed_job(store.files()) == str(newest)
    depot.use(renamed(destination))
    assert (await depot.sent(await depot.job("acme", b"older"))).status == "sent"
    assert listed_job(store.files()) == str(newest)
    store.clear()  # as on another machine
    older = await depot.job("acme", b"older")
    assert (await depot.sent(older)).status == "sent"
    assert listed_job(store.files()) == str(older)


async def test_one_job_at_a_time_writes_the_list_at_a_shared_path(
    depot: Depot, pointer: tuple[Destination, OtherStore]
) -> None:
    """The files are sent meanwhile, and are not sent again."""
    destination, store = pointer
    depot.use(destination)
    writing = await depot.job("acme", b"a")
    assert (await depot.sent(writing)).status == "sent"
    await send_on(depot, writing)
    newer = await depot.job("acme", b"b", created_at=LATER)
    async with depot.working():
        row = await depot.tried(newer)
        assert (row.reason, row.progress["files"], row.progress["manifest"]) == (BUSY, 1, None)
        assert listed_job(store.files()) == str(writing)
        await depot.run("UPDATE deliveries SET status = 'sent' WHERE job_id = :id", id=writing)
        await depot.hurry()
        row = await depot.ended(newer)
    assert (row.status, row.progress["manifest"]) == ("sent", "in/latest.json")
    assert listed_job(store.files()) == str(newer)


@pytest.mark.parametrize("is_writing", [True, False])
async def test_a_removal_leaves_the_list_that_another_job_writes(
    depot: Depot, pointer: tuple[Destination, OtherStore], is_writing: bool
) -> None:
    destination, store = pointer
    depot.use(destination)
    gone = await depot.job("acme", b"a")
    assert (await depot.sent(gone)).status == "sent"
    other = await depot.job("acme", b"b", created_at=LATER)
    progress = {"path": f"in/{other}/ledger.csv", "manifest": "in/latest.json", "writing": int(is_writing)}
    await tried_before(depot, other, destination, **progress)
    await send_on(depot, other)
    await depot.run("UPDATE export_jobs SET expires_at = now() WHERE id = :id", id=gone)
    await depot.run("UPDATE deliveries SET status = 'pending' WHERE job_id = :id", id=gone)
    assert (await depot.sent(gone)).status == "failed"
    assert list(store.files()) == (["in/latest.json"] if is_writing else [])
