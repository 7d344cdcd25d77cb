"""Files are sent to a real SFTP server, through its faults: one set of complete files, or none."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncssh
import pytest

from stream_app.destinations.errors import DestinationError, TransferInterrupted
from stream_app.destinations.session import OutgoingFile, SessionOptions, open_session
from stream_app.destinations.sftp import SftpSession
from stream_app.destinations.transfer import Transfer
from stream_app.notifications.outbox import Outbox
from stream_app.settings import Settings
from tests.integration.destinations.conftest import Depot, names, on_sftp
from tests.sftp_servers import PASSWORD, AsyncSsh, OpenSsh, SftpServer, encrypted_key
from tests.waiting import until, until_async

SECOND = OutgoingFile("a.csv", "a.csv", "text/csv", 6, "")


async def test_a_job_with_one_file_is_sent_with_its_hive_path(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"id\n1\n")
    row = await depot.sent(job)
    assert (row.status, row.attempts, row.reason) == ("sent", 1, None)
    assert sftp.files() == {f"in/ledger/date=2026-11-26/{job}/ledger.csv": b"id\n1\n"}


async def test_several_files_are_sent_and_the_manifest_comes_last(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"bb", b"ccc")
    await depot.sent(job)
    files = sftp.files()
    assert names(files, job) == ["ledger-00001.csv", "ledger-00002.csv", "ledger-00003.csv", "manifest.json"]
    manifest = json.loads(files[f"in/ledger/date=2026-11-26/{job}/manifest.json"])
    assert [item["bytes"] for item in manifest["files"]] == [1, 2, 3]
    assert manifest["rows"] == 3
    assert all(f"in/{item['path']}" in files for item in manifest["files"])
    folder = sftp.root / f"in/ledger/date=2026-11-26/{job}"
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert max(times, key=lambda name: times[name]) == "manifest.json"


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"refused": "rename,posix-rename"}, "refuses to rename"),
        ({"refused": "mkdir"}, "does not permit"),
        ({"refused": "write"}, "does not permit"),
        ({"largest_file": 100 * 1024}, "possibly full"),
    ],
    ids=["rename refused", "no folders", "read only", "full"],
)
async def test_a_fault_leaves_no_file_and_the_next_attempt_sends_all(
    depot: Depot, sftp: SftpServer, faults: dict[str, str], reason: str
) -> None:
    depot.use(on_sftp(sftp))
    sftp.faults(**faults)  # type: ignore[arg-type]
    job = await depot.job("acme", b"x" * 300_000, b"y" * 300_000)
    async with depot.working():
        row = await depot.tried(job)
        assert reason in row.reason
        assert "Error" not in row.reason
        assert "Permission denied" not in row.reason
        assert sftp.files() == {}
        sftp.faults()
        await depot.hurry()
        row = await depot.ended(job)
    assert row.status == "sent"
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


async def test_a_server_without_posix_rename_replaces_the_file(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp, path="{dataset}-{number}.{extension}"))
    sftp.faults(refused="posix-rename")
    for content in (b"first", b"second"):
        await depot.sent(await depot.job("acme", content))
        assert sftp.files() == {"in/ledger-1.csv": content}


async def test_a_server_without_posix_rename_keeps_the_old_file_if_it_refuses_the_new_one(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, path="{dataset}-{number}.{extension}"))
    await depot.sent(await depot.job("acme", b"first"))
    sftp.faults(refused="posix-rename,rename")
    job = await depot.job("acme", b"second")
    async with depot.working():
        assert "refuses to rename" in (await depot.tried(job)).reason
        assert sftp.files() == {"in/ledger-1.csv": b"first"}
        sftp.faults()
        await depot.hurry()
        await depot.ended(job)
    assert sftp.files() == {"in/ledger-1.csv": b"second"}


def test_an_old_file_gets_its_name_again_if_only_the_second_rename_is_refused(
    sftp: SftpServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sftp.faults(refused="posix-rename")
    (sftp.root / "in").mkdir()
    (sftp.root / "in/a.csv").write_bytes(b"first")
    rename = asyncssh.SFTPClient.rename

    async def refuse(self: asyncssh.SFTPClient, old: str, new: str) -> None:
        if old.endswith(".part"):
            raise asyncssh.SFTPPermissionDenied("refused")
        await rename(self, old, new)

    monkeypatch.setattr(asyncssh.SFTPClient, "rename", refuse)
    options = SessionOptions("t", 1, lambda: False)
    with (
        open_session(on_sftp(sftp), settings, options) as session,
        pytest.raises(DestinationError, match="refuses to rename"),
    ):
        session.put(SECOND, iter([b"second"]))
    assert sftp.files() == {"in/a.csv": b"first"}


def test_a_file_does_not_get_its_name_after_the_transfer_was_stopped(
    sftp: SftpServer, settings: Settings
) -> None:
    """A worker that was frozen after the last byte must not replace what the next one has sent."""
    (sftp.root / "in").mkdir()
    (sftp.root / "in/a.csv").write_bytes(b"first")
    options = SessionOptions("t", 1, lambda: True)
    with open_session(on_sftp(sftp), settings, options) as session, pytest.raises(TransferInterrupted):
        session.put(SECOND, iter([b"second"]))
    assert sftp.files() == {"in/a.csv": b"first"}


async def test_nothing_is_sent_to_a_server_with_another_host_key(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    sftp.change_host_key()
    job = await depot.job("acme", b"a")
    async with depot.working():
        row = await depot.tried(job)
        assert "has another host key than the pinned one" in row.reason
        assert sftp.files() == {}
        depot.use(on_sftp(sftp))
        await depot.hurry()
        assert (await depot.ended(job)).status == "sent"


async def test_a_server_that_is_away_delays_the_delivery_and_all_others_to_it(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp))
    sftp.stop()
    try:
        job = await depot.job("acme", b"a")
        async with depot.working():
            row = await depot.tried(job)
            assert row.reason.startswith("the destination cannot be reached")
            other = await depot.job("acme", b"b")
            async with depot.engine.connect() as connection:
                hosts = await connection.exec_driver_sql("SELECT host FROM receiver_hosts")
                assert hosts.scalars().all() == ["destination:acme"]
            assert (await depot.row(other)).attempts == 0
            sftp.start()
            await depot.hurry()
            assert [(await depot.ended(item)).status for item in (job, other)] == ["sent", "sent"]
    finally:
        if not sftp.is_up:
            sftp.start()


@asynccontextmanager
async def halted(depot: Depot, sftp: SftpServer, **values: str) -> AsyncIterator[OpenSsh]:
    """Halt the server while it receives a file."""
    assert isinstance(sftp, OpenSsh), "install openssh-server"
    depot.use(on_sftp(sftp, **values))
    yield sftp
    sftp.signal(signal.SIGCONT)


async def until_halted_in_the_middle(depot: Depot, sftp: OpenSsh) -> None:
    """Halt the server when it has a part of a file."""

    def has_a_part() -> bool:
        return any(len(content) > 2**20 for path, content in sftp.files().items() if path.endswith(".part"))

    await until_async(lambda: asyncio.to_thread(has_a_part), every=0.001)
    sftp.signal(signal.SIGSTOP)


async def test_a_slow_server_keeps_its_delivery_for_longer_than_a_lease(
    depot: Depot, sftp: SftpServer
) -> None:
    async with halted(depot, sftp) as server:
        job = await depot.job("acme", b"x" * 30 * 2**20)
        async with depot.working(2, delivery_timeout_seconds=0.2):  # a lease of 2.4 s
            await until_halted_in_the_middle(depot, server)
            first = (await depot.row(job)).lease_until
            await until_async(lambda: _renewed(depot, job, first))
            server.signal(signal.SIGCONT)
            row = await depot.ended(job)
    assert (row.status, row.attempts) == ("sent", 1)
    assert row.progress["bytes"] == 30 * 2**20
    assert names(sftp.files(), job) == ["ledger.csv"]


async def _renewed(depot: Depot, job: object, first: object) -> bool:
    return bool((await depot.row(job)).lease_until > first)  # type: ignore[arg-type]


async def test_a_removed_job_ends_its_transfer_and_leaves_no_file(depot: Depot, sftp: SftpServer) -> None:
    async with halted(depot, sftp) as server:
        job = await depot.job("acme", b"small", b"x" * 30 * 2**20)
        async with depot.working(delivery_timeout_seconds=0.2):
            await until_halted_in_the_middle(depot, server)
            assert "ledger-00001.csv" in names(sftp.files(), job)
            await depot.run(
                "UPDATE export_jobs SET cancel_requested_at = now(), expires_at = now() WHERE id = :id",
                id=job,
            )
            first = (await depot.row(job)).lease_until
            await until_async(lambda: _stopped(depot, job, first))
            server.signal(signal.SIGCONT)
            await depot.hurry()
            row = await depot.ended(job)
    assert (row.status, row.reason) == ("failed", "the file has expired")
    assert sftp.files() == {}


async def _stopped(depot: Depot, job: object, first: object) -> bool:
    """Wait for the time of the next renewal, which is refused."""
    await asyncio.sleep(0.7)
    return bool((await depot.row(job)).lease_until == first)  # type: ignore[arg-type]


async def test_a_worker_that_stops_hands_its_transfer_over(depot: Depot, sftp: SftpServer) -> None:
    async with halted(depot, sftp) as server:
        job = await depot.job("acme", b"small", b"x" * 30 * 2**20)
        async with depot.working():
            await until_halted_in_the_middle(depot, server)
            assert names(sftp.files(), job)[1] == "ledger-00001.csv"
            server.signal(signal.SIGCONT)
        row = await depot.row(job)
        assert (row.status, row.progress["files"]) == ("pending", 1)
        assert "worker was stopped" in row.reason
        await depot.hurry()
        row = await depot.sent(job)
    assert (row.status, row.attempts) == ("sent", 2)
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


async def test_the_next_attempt_removes_the_temporary_file_of_a_dead_worker(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"whole")
    tag = (await depot.row(job)).id.hex[:12]
    folder = sftp.root / f"in/ledger/date=2026-11-26/{job}"
    folder.mkdir(parents=True)
    (folder / f".{tag}-1.part").write_bytes(b"wh")
    (folder / "other.part").write_bytes(b"not ours")
    await depot.run("UPDATE deliveries SET attempts = 1 WHERE job_id = :id", id=job)
    await depot.sent(job)
    assert sorted(names(sftp.files(), job)) == ["ledger.csv", "other.part"]


async def test_a_file_that_does_not_exist_is_a_failure(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"b")
    await depot.storage.call(depot.storage.remove, f"{depot.storage.prefix}/{job}/1/ledger-00002.csv")
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("failed", "the file does not exist any more")
    assert sftp.files() == {}


async def test_a_damaged_file_is_not_sent(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"whole")
    await depot.run("UPDATE export_jobs SET sha256 = 'other' WHERE id = :id", id=job)
    async with depot.working():
        row = await depot.tried(job)
    assert row.reason == "the file is not complete in the object store"
    assert sftp.files() == {}


async def give_up(depot: Depot, job: UUID) -> None:
    """Let the time be over in which the delivery of a job is retried."""
    await depot.run("UPDATE deliveries SET give_up_at = now() WHERE job_id = :id", id=job)


@pytest.mark.parametrize("removable", [True, False], ids=["removable", "not removable"])
async def test_a_set_that_is_given_up_is_removed_or_told_and_can_be_sent_again(
    depot: Depot, sftp: SftpServer, removable: bool
) -> None:
    depot.use(on_sftp(sftp))
    sftp.faults(largest_file=100 * 1024)
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        assert (await depot.tried(job)).progress["files"] == 1
        assert names(sftp.files(), job) == ["ledger-00001.csv"]
        sftp.faults(largest_file=100 * 1024, refused="" if removable else "remove")
        await give_up(depot, job)
        await depot.hurry()
        row = await depot.ended(job)
    assert (row.status, row.attempts) == ("failed", 2)
    text = (
        "1 file that was sent before could not be removed from the destination, and the set is not complete"
    )
    assert (text in row.reason) is not removable
    assert row.reason.startswith("the destination did not take the file")
    if removable:
        assert sftp.files() == {}
    sftp.faults()
    assert await Outbox(depot.engine).resend(job) == ["acme"]
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("sent", None)
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


async def test_a_removal_keeps_its_delivery_for_longer_than_a_lease(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker must not send the files while they are removed."""
    remove = SftpSession.remove

    def halt(self: SftpSession, path: str) -> None:
        server.signal(signal.SIGSTOP)
        remove(self, path)

    async with halted(depot, sftp) as server:
        sftp.faults(largest_file=100 * 1024)
        job = await depot.job("acme", b"small", b"x" * 300_000)
        async with depot.working(delivery_timeout_seconds=0.2):
            await depot.tried(job)
        sftp.faults()
        await give_up(depot, job)
        await depot.hurry()
        monkeypatch.setattr(Transfer, "run", refuse_transfer)
        monkeypatch.setattr(SftpSession, "remove", halt)
        async with depot.working(2, delivery_timeout_seconds=0.2):  # a lease of 2.4 s
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


async def test_a_delivery_that_never_began_is_given_up_without_a_word_about_its_set(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, private_key_file=sftp.folder / "nothing"))
    job = await depot.job("acme", b"a")
    await give_up(depot, job)
    row = await depot.sent(job)
    assert (row.status, row.attempts) == ("failed", 1)
    assert "could not be removed" not in row.reason


async def test_a_permanent_refusal_of_one_file_ends_the_delivery_and_leaves_no_set(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.use(on_sftp(sftp))
    rename = asyncssh.SFTPClient.posix_rename

    async def refuse(self: asyncssh.SFTPClient, old: str, new: str) -> None:
        if new.endswith("-00002.csv"):
            raise asyncssh.SFTPInvalidFilename("such a name")
        await rename(self, old, new)

    monkeypatch.setattr(asyncssh.SFTPClient, "posix_rename", refuse)
    job = await depot.job("acme", b"a", b"b")
    row = await depot.sent(job)
    assert (row.status, row.attempts) == ("failed", 1)
    assert row.reason == "the destination never takes such a file"
    assert sftp.files() == {}


async def test_the_file_of_another_job_stays_where_a_removed_job_had_recorded_its_own(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, path="{dataset}-{number}.{extension}", manifest="never"))
    job = await depot.job("acme", b"a", b"b")
    await depot.sent(job)
    (sftp.root / "in/ledger-1.csv").write_bytes(b"o")  # of another job
    await remove_while_sending(depot, job, 2)
    await depot.sent(job)
    assert sftp.files() == {"in/ledger-1.csv": b"o"}


@pytest.mark.parametrize("recorded", [1, 2])
async def test_temporary_files_are_removed_wherever_the_manifest_is_stored(
    depot: Depot, sftp: SftpServer, recorded: int
) -> None:
    """A worker can die while it writes the manifest, when all files are recorded."""
    depot.use(on_sftp(sftp, manifest_path="_manifests/{job_id}.json"))
    job = await depot.job("acme", b"a", b"b")
    await depot.sent(job)
    tag = (await depot.row(job)).id.hex[:12]
    folder = sftp.root / "in/_manifests"
    (folder / f".{tag}-1.part").write_bytes(b"{")
    await depot.run(
        """
        UPDATE deliveries SET status = 'pending', not_before = now(),
            progress = jsonb_set(progress, '{files}', to_jsonb(CAST(:n AS integer)))
        WHERE job_id = :id
        """,
        id=job,
        n=recorded,
    )
    assert (await depot.sent(job)).status == "sent"
    assert [path.name for path in folder.iterdir()] == [f"{job}.json"]


async def test_rights_are_checked_again_when_files_are_sent(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp, roles=["partner"]))
    job = await depot.job("acme", b"a")
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("failed", "the user cannot use this destination any more")
    allowed = await depot.job("acme", b"a", claims={"roles": ["partner"]})
    assert (await depot.sent(allowed)).status == "sent"


async def test_a_set_that_was_removed_is_sent_whole_when_its_user_has_the_rights_again(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"b")
    await depot.sent(job)
    # A worker died after the second file was recorded, and the user lost the role.
    await depot.run("UPDATE deliveries SET status = 'pending' WHERE job_id = :id", id=job)
    depot.use(on_sftp(sftp, roles=["partner"]))
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("failed", "the user cannot use this destination any more")
    assert sftp.files() == {}
    depot.use(on_sftp(sftp))
    await depot.run("UPDATE deliveries SET status = 'pending', not_before = now() WHERE job_id = :id", id=job)
    assert (await depot.sent(job)).status == "sent"
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


@pytest.mark.parametrize("recorded", [0, 1, 2])
async def test_files_that_were_renamed_but_not_recorded_are_removed_with_the_job(
    depot: Depot, sftp: SftpServer, recorded: int
) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"b")
    await depot.sent(job)
    await remove_while_sending(depot, job, recorded)
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("failed", "the file has expired")
    assert sftp.files() == {}


async def test_only_files_with_its_own_content_are_removed_with_a_job_where_jobs_share_paths(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, path="{dataset}-{number}.{extension}", manifest="never"))
    job = await depot.job("acme", b"a", b"b", b"c", b"d" * 3_000_000)
    await depot.sent(job)
    (sftp.root / "in/ledger-3.csv").write_bytes(b"o")  # of another job
    await remove_while_sending(depot, job, 1)
    await depot.sent(job)
    assert sftp.files() == {"in/ledger-3.csv": b"o"}


async def remove_while_sending(depot: Depot, job: UUID, recorded: int) -> None:
    """Let a worker have died when so many files were recorded, and remove the job."""
    await depot.run(
        """
        UPDATE deliveries SET status = 'pending',
            progress = jsonb_set(progress, '{files}', to_jsonb(CAST(:n AS integer)))
        WHERE job_id = :id
        """,
        id=job,
        n=recorded,
    )
    await depot.run(
        "UPDATE export_jobs SET cancel_requested_at = now(), expires_at = now() WHERE id = :id", id=job
    )


async def test_a_destination_that_moves_gets_the_whole_set_at_the_new_place(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"b")
    progress = '{"place": "before", "zone": "UTC", "files": 1, "bytes": 1}'
    await depot.run(
        "UPDATE deliveries SET attempts = 1, progress = CAST(:p AS jsonb) WHERE job_id = :id",
        id=job,
        p=progress,
    )
    await depot.sent(job)
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


def test_passwords_encrypted_keys_and_known_hosts(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AsyncSsh(tmp_path / "server")
    server.start()
    monkeypatch.setenv("ACME_PASSWORD", PASSWORD)
    monkeypatch.setenv("ACME_PASSPHRASE", "secret words")
    locked = tmp_path / "locked"
    locked.write_text(encrypted_key(server.key, "secret words"))
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    options = SessionOptions("t", 1, lambda: False)
    try:
        for values in (
            {"private_key_file": None, "password_env": "ACME_PASSWORD"},
            {"private_key_file": locked, "passphrase_env": "ACME_PASSPHRASE"},
            {"host_key": None, "known_hosts": known},
        ):
            with open_session(on_sftp(server, **values), settings, options) as session:
                session.remove("nothing")
        wrong = on_sftp(server, private_key_file=None, password_env="ACME_PASSPHRASE")
        with (
            pytest.raises(Exception, match="refuses the sign-in of the service") as caught,
            open_session(wrong, settings, options),
        ):
            pass
        assert "secret words" not in f"{caught.value} {caught.value.detail}"  # type: ignore[attr-defined]
    finally:
        server.stop()
    until(lambda: not server.is_up)
