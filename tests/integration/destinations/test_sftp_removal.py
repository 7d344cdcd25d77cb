"""Files of sets that do not become complete are removed from a real SFTP server, and no file of others."""

from datetime import UTC, datetime
from uuid import UUID

import asyncssh
import pytest

from stream_app.notifications.outbox import Outbox
from tests.integration.destinations.conftest import Depot, names, on_sftp
from tests.sftp_servers import SftpServer


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


@pytest.mark.parametrize(
    ("removable", "moved"),
    [(True, False), (False, False), (False, True)],
    ids=["removable", "not removable", "not removable, then moved"],
)
async def test_a_set_that_is_given_up_is_removed_or_told_and_can_be_sent_again(
    depot: Depot, sftp: SftpServer, removable: bool, moved: bool
) -> None:
    depot.use(on_sftp(sftp))
    sftp.faults(largest_file=100 * 1024)
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        assert (await depot.tried(job)).progress["files"] == 1
        assert names(sftp.files(), job) == ["ledger-00001.csv"]
        sftp.faults(largest_file=100 * 1024, refused="" if removable else "remove")
        await depot.give_up(job)
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
    if moved:
        depot.use(on_sftp(sftp, prefix="new"))
    await depot.run("UPDATE deliveries SET not_before = now() + interval '1 hour' WHERE job_id = :id", id=job)
    assert await Outbox(depot.engine).resend(job) == ["acme"]
    await depot.run("DELETE FROM receiver_hosts")  # the server has refused a file
    assert (await depot.row(job)).not_before <= datetime.now(UTC)
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("sent", None)
    left = [(item["files"], item["path"]) for item in row.progress.get("left", ())]
    if moved:
        assert left == [(1, f"in/ledger/date=2026-11-26/{job}/ledger-00001.csv")]
        return
    assert left == []
    assert names(sftp.files(), job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


@pytest.mark.parametrize("begins", [True, False], ids=["begins", "does not begin"])
async def test_a_set_at_an_earlier_place_is_told_if_the_delivery_is_given_up(
    depot: Depot, sftp: SftpServer, begins: bool
) -> None:
    depot.use(on_sftp(sftp))
    sftp.faults(largest_file=100 * 1024)
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        assert (await depot.tried(job)).progress["files"] == 1
        key = sftp.folder / ("user_key" if begins else "nothing")
        depot.use(on_sftp(sftp, prefix="new", private_key_file=key))
        if not begins:
            await depot.run("UPDATE export_jobs SET expires_at = now() WHERE id = :id", id=job)
        await depot.give_up(job)
        await depot.hurry()
        row = await depot.ended(job)
    assert row.status == "failed"
    assert row.reason.endswith(
        "1 file that was sent before the destination was moved could not be removed from its earlier place"
    )
    assert names(sftp.files(), job) == ["ledger-00001.csv"]


@pytest.mark.parametrize(
    "begins", ["writes", "cannot sign in", "cannot write", "does not begin", "cannot remove"]
)
async def test_a_set_that_is_given_up_after_its_host_got_another_name_is_removed(
    depot: Depot, sftp: SftpServer, begins: str
) -> None:
    depot.use(on_sftp(sftp))
    sftp.faults(largest_file=100 * 1024)
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        assert (await depot.tried(job)).progress["files"] == 1
        if begins in ("writes", "cannot sign in", "cannot write"):
            key = sftp.folder / ("nothing" if begins == "cannot sign in" else "user_key")
            if begins == "cannot write":
                sftp.faults(refused="write")
            depot.use(on_sftp(sftp, host="localhost", private_key_file=key))
            await depot.hurry()
            assert (await depot.tried(job, 2)).status == "pending"
        depot.use(on_sftp(sftp, host="localhost"))
        sftp.faults(refused="remove" if begins == "cannot remove" else "")
        await depot.run("UPDATE export_jobs SET expires_at = now() WHERE id = :id", id=job)
        await depot.hurry()
        row = await depot.ended(job)
        assert row.status == "failed"
        if begins == "cannot remove":  # the next attempt knows what this one has found
            assert "1 file that was sent before could not be removed from the destination" in row.reason
            assert (row.progress["removed"], row.progress["left"][0]["found"]) == (False, True)
            sftp.faults()
            assert await Outbox(depot.engine).resend(job) == ["acme"]
            row = await depot.ended(job)
    assert (row.status, row.progress["removed"]) == ("failed", True)
    assert "could not be removed" not in row.reason
    assert sftp.files() == {}


@pytest.mark.parametrize("refused", ["sign in", "write"])
async def test_a_place_that_has_refused_the_service_counts_as_empty_when_the_destination_is_moved(
    depot: Depot, sftp: SftpServer, refused: str
) -> None:
    key = sftp.folder / ("user_key" if refused == "write" else "nothing")
    depot.use(on_sftp(sftp, private_key_file=key))
    sftp.faults(refused="open" if refused == "write" else "")
    job = await depot.job("acme", b"a")
    async with depot.working():
        assert (await depot.tried(job)).progress["writing"] == 0
        sftp.faults()
        depot.use(on_sftp(sftp, prefix="new"))
        await depot.hurry()
        row = await depot.ended(job)
    assert (row.status, row.progress.get("left")) == ("sent", None)


async def test_a_destination_that_is_moved_back_gets_the_whole_set(depot: Depot, sftp: SftpServer) -> None:
    """People were told that files are left there, so they have possibly removed or changed them."""
    sftp.faults(largest_file=100 * 1024)
    depot.use(on_sftp(sftp))
    job = await depot.job("acme", b"small", b"x" * 300_000)
    async with depot.working():
        first = await depot.tried(job)
        depot.use(on_sftp(sftp, prefix="new"))
        await depot.hurry()
        second = await depot.tried(job, 2)
        depot.use(on_sftp(sftp))
        (sftp.root / first.progress["path"]).write_bytes(b"changed")
        sftp.faults()
        await depot.hurry()
        third = await depot.ended(job)
    assert (first.progress["files"], second.progress["files"]) == (1, 1)
    assert [item["path"] for item in second.progress["left"]] == [first.progress["path"]]
    assert [item["path"] for item in third.progress["left"]] == [second.progress["path"]]
    assert third.status == "sent"
    assert sftp.files()[first.progress["path"]] == b"small"
    assert set(names(sftp.files(), job)) == {
        "ledger-00001.csv",
        "ledger-00002.csv",
        "manifest.json",
        second.progress["path"],
    }


async def test_a_delivery_that_never_began_is_given_up_without_a_word_about_its_set(
    depot: Depot, sftp: SftpServer
) -> None:
    depot.use(on_sftp(sftp, private_key_file=sftp.folder / "nothing"))
    job = await depot.job("acme", b"a")
    await depot.give_up(job)
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
