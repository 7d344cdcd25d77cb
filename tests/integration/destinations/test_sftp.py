"""Files are sent to a real SFTP server, through its faults: one set of complete files, or none."""

import json
from datetime import timedelta
from pathlib import Path

import asyncssh
import pytest

from stream_app.destinations.errors import DestinationError, TransferInterrupted
from stream_app.destinations.progress import place_of
from stream_app.destinations.session import OutgoingFile, SessionOptions, open_session
from stream_app.settings import Settings
from tests.integration.destinations.conftest import DAY, Depot, names, on_sftp
from tests.sftp_servers import PASSWORD, AsyncSsh, SftpServer, encrypted_key
from tests.waiting import until

SECOND = OutgoingFile("a.csv", "a.csv", "text/csv", 6, "")


async def test_a_job_with_one_file_is_sent_with_its_hive_path(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"id\n1\n")
    row = await depot.sent(job)
    assert (row.status, row.attempts, row.reason) == ("sent", 1, None)
    assert sftp.files() == {f"in/ledger/date=2026-11-26/{job}/ledger.csv": b"id\n1\n"}


async def test_several_files_are_sent_and_the_manifest_comes_last(
    depot: Depot, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, renamed = asyncssh.SFTPClient.posix_rename, list[str]()

    async def note(self: asyncssh.SFTPClient, old: str, new: str) -> None:
        renamed.append(new)
        await rename(self, old, new)

    monkeypatch.setattr(asyncssh.SFTPClient, "posix_rename", note)
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"bb", b"ccc")
    await depot.sent(job)
    files = sftp.files()
    assert names(files, job) == ["ledger-00001.csv", "ledger-00002.csv", "ledger-00003.csv", "manifest.json"]
    manifest = json.loads(files[f"in/ledger/date=2026-11-26/{job}/manifest.json"])
    assert [item["bytes"] for item in manifest["files"]] == [1, 2, 3]
    assert manifest["rows"] == 3
    assert all(f"in/{item['path']}" in files for item in manifest["files"])
    assert names(renamed, job) == names(files, job), "the clock of a file system is too coarse to tell it"


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


def test_an_old_file_gets_its_name_again_by_the_next_attempt_if_the_connection_ended_between_the_renames(
    sftp: SftpServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sftp.faults(refused="posix-rename")
    (sftp.root / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        (sftp.root / "in" / name).write_bytes(b"first")
    rename = asyncssh.SFTPClient.rename

    async def lose(self: asyncssh.SFTPClient, old: str, new: str) -> None:
        if not new.endswith(".old"):
            raise asyncssh.SFTPConnectionLost("lost")
        await rename(self, old, new)

    monkeypatch.setattr(asyncssh.SFTPClient, "rename", lose)
    with (
        open_session(on_sftp(sftp), settings, SessionOptions("t", 1, lambda: False)) as session,
        pytest.raises(DestinationError),
    ):
        session.put(SECOND, iter([b"second"]))
    monkeypatch.undo()
    (aside,) = set(sftp.files()) - {"in/b.csv"}
    assert aside.endswith(".old")
    with open_session(on_sftp(sftp), settings, SessionOptions("t", 2, lambda: False)) as session:
        for other in ("b.csv", "c.csv"):
            session.remove_leftovers(other)
        assert set(sftp.files()) == {aside, "in/b.csv"}
        session.remove_leftovers("a.csv")
    assert sftp.files() == {"in/a.csv": b"first", "in/b.csv": b"first"}


@pytest.mark.parametrize(
    ("is_there", "is_single", "expected"),
    [
        (True, True, {"in/a.csv": b"second"}),
        (False, True, {"in/a.csv": b"first"}),
        (True, False, {"in/a.csv": b"second", "in/.t-1.old": b"first"}),
        (False, False, {"in/.t-1.old": b"first"}),
    ],
)
def test_an_old_file_with_the_name_of_the_version_before(
    sftp: SftpServer, settings: Settings, is_there: bool, is_single: bool, expected: dict[str, bytes]
) -> None:
    """It is removed only if there is a file in its place, and left if it can be that of another path."""
    (sftp.root / "in").mkdir()
    (sftp.root / "in/.t-1.old").write_bytes(b"first")
    if is_there:
        (sftp.root / "in/a.csv").write_bytes(b"second")
    options = SessionOptions("t", 2, lambda: False, is_single=is_single)
    with open_session(on_sftp(sftp), settings, options) as session:
        session.remove_leftovers("a.csv")
    assert sftp.files() == expected


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


async def test_jobs_that_share_a_path_are_sent_in_turn_and_never_replace_a_newer_one(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, path="{dataset}-{number}.{extension}", manifest="never"))
    newer = await depot.job("acme", b"newer", created_at=DAY + timedelta(hours=1))
    assert (await depot.sent(newer)).status == "sent"
    older = await depot.job("acme", b"older")
    sending = (
        "UPDATE deliveries SET status = :status, lease_until = now() + interval '1 hour' WHERE job_id = :id"
    )
    await depot.run(sending, status="sending", id=newer)
    async with depot.working():
        row = await depot.tried(older)
        assert row.reason == "another export is being sent to the same path"
        await depot.run(sending, status="sent", id=newer)
        await depot.hurry()
        row = await depot.ended(older)
    assert (row.status, row.reason) == ("failed", "replaced by a newer export, which has the same path")
    assert sftp.files() == {"in/ledger-1.csv": b"newer"}


async def test_a_retry_sends_a_file_again_that_another_job_has_replaced(
    depot: Depot, sftp: SftpServer
) -> None:
    destination = on_sftp(sftp, path="{number}.{extension}", manifest="never")
    depot.use(destination)
    newer = await depot.job("acme", b"one", b"two", b"three", created_at=DAY + timedelta(hours=1))
    later = "UPDATE deliveries SET not_before = now() + interval '1 hour' WHERE job_id = :id"
    await depot.run(later, id=newer)
    older = await depot.job("acme", b"one", b"old")
    assert (await depot.sent(older)).status == "sent"
    progress = {"place": place_of(destination), "zone": "UTC", "files": 2, "bytes": 6}
    change = (
        "UPDATE deliveries SET attempts = 1, not_before = now(), progress = CAST(:p AS jsonb) "
        "WHERE job_id = :id"
    )
    await depot.run(change, id=newer, p=json.dumps(progress))
    assert (await depot.sent(newer)).status == "sent"
    assert sftp.files() == {"in/1.csv": b"one", "in/2.csv": b"two", "in/3.csv": b"three"}


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


async def test_a_file_that_does_not_exist_is_a_failure(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"a", b"b")
    await depot.storage.run_in_thread(
        depot.storage.removal.remove, f"{depot.storage.prefix}/{job}/1/ledger-00002.csv"
    )
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


async def test_rights_are_checked_again_when_files_are_sent(depot: Depot, sftp: SftpServer) -> None:
    depot.use(on_sftp(sftp, roles=["partner"]))
    job = await depot.job("acme", b"a")
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("failed", "the user cannot use this destination any more")
    allowed = await depot.job("acme", b"a", claims={"roles": ["partner"]})
    assert (await depot.sent(allowed)).status == "sent"


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
