"""Files are sent to a second S3 server, and copied inside the service's own, through their faults."""

import asyncio
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from stream_app.datasets.destinations import S3Destination
from stream_app.destinations import s3
from stream_app.destinations.errors import DestinationError, TransferInterrupted
from stream_app.destinations.session import OutgoingFile, SessionOptions, open_session
from stream_app.storage.multipart_upload import MultipartUpload
from tests.integration.destinations.conftest import Depot, OtherStore, names, on_s3

PART = 5 * 2**20
"""The smallest part that S3 takes."""

LARGE = b"0123456789abcdef" * (PART // 16 + 1)
"""Two parts."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_SIZE", PART)


async def test_files_and_their_manifest_are_sent(
    depot: Depot, other_store: OtherStore, tmp_path: Path
) -> None:
    depot.use(on_s3(other_store, tmp_path))
    job = await depot.job("acme", b"id\n1\n", LARGE)
    row = await depot.sent(job)
    assert (row.status, row.attempts, row.reason) == ("sent", 1, None)
    assert row.progress["path"] == f"in/ledger/date=2026-11-26/{job}/ledger-00001.csv"
    files = await asyncio.to_thread(other_store.files)
    assert names(files, job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]
    assert files[f"in/ledger/date=2026-11-26/{job}/ledger-00002.csv"] == LARGE
    manifest = json.loads(files[f"in/ledger/date=2026-11-26/{job}/manifest.json"])
    entries = manifest["entries"]
    assert [entry["url"].partition("acme/")[2] in files for entry in entries] == [True, True]
    assert "s3://exports/" not in str(manifest)
    about = other_store.service.client().stat_object(
        bucket_name="acme", object_name=f"in/ledger/date=2026-11-26/{job}/ledger-00001.csv"
    )
    assert about.content_type == "text/csv; charset=utf-8"


async def test_wrong_keys_are_told_without_texts_of_the_server(
    depot: Depot, other_store: OtherStore, tmp_path: Path
) -> None:
    destination = on_s3(other_store, tmp_path)
    depot.use(destination)
    (tmp_path / "secret_key").write_text("wrong")
    job = await depot.job("acme", b"a")
    async with depot.working():
        row = await depot.tried(job)
        assert row.reason == (
            "the destination does not permit the service to write the file; operators: run "
            "`exporter destinations test acme`"
        )
        (tmp_path / "secret_key").write_text(other_store.service.secret_key)  # read anew: no restart
        await depot.hurry()
        assert (await depot.ended(job)).status == "sent"


async def test_a_missing_secret_is_told(depot: Depot, other_store: OtherStore, tmp_path: Path) -> None:
    destination = on_s3(other_store, tmp_path)
    depot.use(destination)
    (tmp_path / "secret_key").unlink()
    async with depot.working():
        row = await depot.tried(await depot.job("acme", b"a"))
    assert row.reason.startswith("the service lacks a secret of the destination")


async def test_a_server_that_is_away_delays_the_delivery(
    depot: Depot, other_store: OtherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "RETRY_SECONDS", 0.1)
    depot.use(on_s3(other_store, tmp_path))
    job = await depot.job("acme", b"a")
    await asyncio.to_thread(other_store.service.kill)
    try:
        async with depot.working():
            row = await depot.tried(job)
            assert row.reason.startswith("the destination cannot be reached")
            await asyncio.to_thread(other_store.service.restart)
            await depot.hurry()
            assert (await depot.ended(job)).status == "sent"
    finally:
        if not other_store.service.running:
            await asyncio.to_thread(other_store.service.restart)
    assert names(await asyncio.to_thread(other_store.files), job) == ["ledger.csv"]


async def test_a_failed_upload_leaves_no_upload_and_not_even_the_old_file_is_lost(
    depot: Depot, other_store: OtherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.use(on_s3(other_store, tmp_path, path="{dataset}-{number}.{extension}"))
    other_store.put("in/ledger-1.csv", LARGE[::-1])

    def refuse(self: MultipartUpload, *arguments: object, **options: object) -> None:
        raise OSError("the answer is lost")

    job = await depot.job("acme", LARGE)
    monkeypatch.setattr(MultipartUpload, "_ask_for_completion", refuse)
    async with depot.working():
        row = await depot.tried(job)
        assert row.reason.startswith("the destination cannot be reached")
        assert other_store.files() == {"in/ledger-1.csv": LARGE[::-1]}
        uploads = other_store.service.client()._list_multipart_uploads("acme", prefix="in/ledger-1").uploads
        assert uploads == []  # other tests leave some at other places
        monkeypatch.undo()
        await depot.hurry()
        assert (await depot.ended(job)).status == "sent"
    assert other_store.files() == {"in/ledger-1.csv": LARGE}


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["in one call", "in parts"])
async def test_an_object_that_the_receiver_takes_away_at_once_is_sent(
    depot: Depot, other_store: OtherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    check, client, taken = s3.S3Session._check_size, other_store.service.client(), list[str]()

    def after_removal(session: s3.S3Session, key: str, size: int) -> None:
        client.remove_object(bucket_name="acme", object_name=key)
        taken.append(key)
        check(session, key, size)

    monkeypatch.setattr(s3.S3Session, "_check_size", after_removal)
    depot.use(on_s3(other_store, tmp_path))
    job = await depot.job("acme", content, b"b")
    row = await depot.sent(job)
    assert (row.status, row.attempts) == ("sent", 1)
    assert names(taken, job) == ["ledger-00001.csv", "ledger-00002.csv", "manifest.json"]


async def test_an_upload_to_an_own_path_whose_last_answer_is_lost_is_not_repeated(
    depot: Depot, other_store: OtherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, completed = MultipartUpload._ask_for_completion, list[str]()

    def lose(self: MultipartUpload, *arguments: Any, **options: Any) -> None:
        complete(self, *arguments, **options)
        completed.append(self.id)
        raise OSError("the answer is lost")

    depot.use(on_s3(other_store, tmp_path))
    job = await depot.job("acme", LARGE)
    monkeypatch.setattr(MultipartUpload, "_ask_for_completion", lose)
    row = await depot.sent(job)
    assert (row.status, row.attempts, len(completed)) == ("sent", 1, 1)
    assert other_store.files() == {f"in/ledger/date=2026-11-26/{job}/ledger.csv": LARGE}


async def test_the_next_attempt_aborts_the_upload_of_a_dead_worker(
    depot: Depot, other_store: OtherStore, tmp_path: Path
) -> None:
    depot.use(on_s3(other_store, tmp_path))
    job = await depot.job("acme", b"whole")
    client = other_store.service.client()
    client._create_multipart_upload("acme", f"in/ledger/date=2026-11-26/{job}/ledger.csv", {})
    client._create_multipart_upload("acme", f"in/ledger/date=2026-11-26/{job}/ledger.csv.other", {})
    await depot.run("UPDATE deliveries SET attempts = 1 WHERE job_id = :id", id=job)
    assert (await depot.sent(job)).status == "sent"
    left = [upload.object_name for upload in client._list_multipart_uploads("acme").uploads]
    assert left == [f"in/ledger/date=2026-11-26/{job}/ledger.csv.other"]


async def test_open_uploads_of_each_file_are_aborted_whatever_was_recorded(
    depot: Depot, other_store: OtherStore, tmp_path: Path
) -> None:
    """A worker can die in the second file, while the database is away and the first is not recorded."""
    depot.use(on_s3(other_store, tmp_path))
    job = await depot.job("acme", b"a", b"b")
    client, folder = other_store.service.client(), f"in/ledger/date=2026-11-26/{job}/"
    client._create_multipart_upload("acme", f"{folder}ledger-00002.csv", {})
    await depot.run("UPDATE deliveries SET attempts = 1 WHERE job_id = :id", id=job)
    assert (await depot.sent(job)).status == "sent"
    left = [str(upload.object_name) for upload in client._list_multipart_uploads("acme").uploads]
    assert [name for name in left if name.startswith(folder)] == []


@pytest.mark.parametrize(("extra", "status"), [(0, "sent"), (1, "failed")])
async def test_a_key_that_is_too_long_is_refused_at_once(
    depot: Depot, other_store: OtherStore, tmp_path: Path, extra: int, status: str
) -> None:
    """S3 allows 1,024 bytes for the prefix, the path and the name together."""
    path = "{job_id}/{file_name}"
    own = len("/00000000-0000-0000-0000-000000000000/ledger.csv")
    prefix = "/".join(["é" * 50] * 8)
    size = len(prefix.encode())
    fill = 1024 + extra - own - size
    depot.use(on_s3(other_store, tmp_path, prefix=prefix, path="/".join(filling(fill)) + "/" + path))
    row = await depot.sent(await depot.job("acme", b"a"))
    assert (row.status, row.attempts) == (status, 1)
    if extra:
        assert "the path has 1,025 bytes with the prefix; S3 allows 1,024" in row.reason
        assert other_store.files() == {}


def filling(size: int) -> list[str]:
    """Return names of folders that have, with the slash behind each, so many bytes."""
    return ["d" * 9] * (size // 10 - 1) + ["d" * (9 + size % 10)]


@pytest.mark.parametrize("content", [b"second", LARGE], ids=["in one call", "in parts"])
async def test_an_object_is_not_replaced_after_the_transfer_was_stopped(
    depot: Depot, other_store: OtherStore, tmp_path: Path, content: bytes
) -> None:
    other_store.put("in/a.csv", b"first")
    file = OutgoingFile("a.csv", "a.csv", "text/csv", len(content), "")
    options = SessionOptions("t", 1, lambda: True)
    destination = on_s3(other_store, tmp_path)
    with open_session(destination, depot.settings, options) as session, pytest.raises(TransferInterrupted):
        session.put(file, iter([content]))
    assert other_store.files() == {"in/a.csv": b"first"}
    assert other_store.service.client()._list_multipart_uploads("acme", prefix="in/a.csv").uploads == []


async def test_a_retry_aborts_the_recorded_upload_and_no_other_one_to_a_shared_path(
    depot: Depot, other_store: OtherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = other_store.service.client()
    key, began = "in/shared.csv", list[str]()
    of_another = client._create_multipart_upload("acme", key, {})

    def die(*_: object) -> None:
        raise OSError("the worker dies")

    def uploads() -> set[str | None]:
        return {upload.upload_id for upload in client._list_multipart_uploads("acme", prefix=key).uploads}

    file = OutgoingFile("shared.csv", "shared.csv", "text/csv", len(LARGE), "")
    destination = on_s3(other_store, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(MultipartUpload, "add", die)
        patch.setattr(MultipartUpload, "abort", lambda _: None)
        first = SessionOptions("t", 1, lambda: False, (), lambda _: False, began.append)
        with open_session(destination, depot.settings, first) as session, pytest.raises(DestinationError):
            session.put(file, iter([LARGE]))
    assert uploads() == {of_another, *began} != {of_another}
    second = SessionOptions("t", 2, lambda: False, tuple(began), lambda _: False)
    with open_session(destination, depot.settings, second) as session:
        session.remove_leftovers("shared.csv")
    assert uploads() == {of_another}
    client._abort_multipart_upload("acme", key, of_another)


async def test_only_objects_with_its_own_content_are_removed_with_a_job_where_jobs_share_paths(
    depot: Depot, other_store: OtherStore, tmp_path: Path
) -> None:
    depot.use(on_s3(other_store, tmp_path, path="{dataset}-{number}.{extension}", manifest="never"))
    job = await depot.job("acme", b"a", b"b", b"c")
    await depot.sent(job)
    other_store.put("in/ledger-3.csv", b"o")  # of another job
    await depot.run(
        "UPDATE deliveries SET status = 'pending', progress = jsonb_set(progress, '{files}', '1') "
        "WHERE job_id = :id",
        id=job,
    )
    await depot.run("UPDATE export_jobs SET expires_at = now() WHERE id = :id", id=job)
    assert (await depot.sent(job)).status == "failed"
    assert other_store.files() == {"in/ledger-3.csv": b"o"}


@pytest.mark.parametrize("part", [s3.COPY_PART, PART], ids=["in one call", "in parts"])
async def test_files_are_copied_inside_the_own_store(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """The service's role is used, and no byte passes the worker."""
    monkeypatch.setattr(s3, "COPY_PART", part)
    client = depot.storage._client
    bucket = "copies"
    if not client.bucket_exists(bucket_name=bucket):
        client.make_bucket(bucket_name=bucket)
    depot.use(S3Destination(name="acme", kind="s3", bucket=bucket, path="{job_id}/{file_name}"))
    job = await depot.job("acme", LARGE)

    def no_bytes(*arguments: object) -> None:
        raise AssertionError("the file was read")

    monkeypatch.setattr(type(depot.storage), "chunks", no_bytes)
    row = await depot.sent(job)
    assert (row.status, row.reason) == ("sent", None)
    with client.get_object(bucket_name=bucket, object_name=f"{job}/ledger.csv") as response:
        assert response.read() == LARGE
    stored = client.stat_object(bucket_name=bucket, object_name=f"{job}/ledger.csv")
    assert stored.content_type == "text/csv; charset=utf-8"
    assert (stored.metadata or {})["x-amz-meta-sha256"] == hashlib.sha256(LARGE).hexdigest()


async def test_keys_that_cannot_read_the_own_bucket_get_the_file_through_the_worker(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = depot.storage._client, "streamed"
    if not client.bucket_exists(bucket_name=bucket):
        client.make_bucket(bucket_name=bucket)
    client.put_object(bucket_name=bucket, object_name="x", data=io.BytesIO(b"x"), length=1)
    depot.use(S3Destination(name="acme", kind="s3", bucket=bucket, path="{job_id}/{file_name}"))
    job = await depot.job("acme", LARGE)
    monkeypatch.setattr(s3.S3Session, "copy", lambda *_: False)
    assert (await depot.sent(job)).status == "sent"
    with client.get_object(bucket_name=bucket, object_name=f"{job}/ledger.csv") as response:
        assert response.read() == LARGE
