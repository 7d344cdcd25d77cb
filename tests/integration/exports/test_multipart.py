"""The service's multipart upload: its parts, their order, and the state after a failure."""

import base64
import threading
import time
import zlib
from array import array
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from minio import Minio
from minio.error import S3Error
from urllib3 import HTTPResponse

from stream_app.settings import Settings
from stream_app.storage import multipart_upload as module
from stream_app.storage.multipart_upload import PARALLEL, PART_SIZE, open_multipart_upload
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Outage, Rejected, Retryable
from tests.waiting import WITHIN, patient


@pytest.fixture
def key() -> str:
    return f"jobs/{uuid4()}/1/file"


def put(storage: ObjectStore, key: str, content: bytes) -> None:
    """Upload the content in chunks whose ends differ from those of the parts."""
    chunks = (content[start : start + 1_000_003] for start in range(0, len(content), 1_000_003))
    storage.put(key, chunks, content_type="text/plain", file_name="f.txt", metadata=lambda: {"rows": "7"})


def fetch(storage: ObjectStore, key: str) -> bytes:
    answer = storage._client.get_object(storage.bucket, key)
    try:
        return answer.data
    finally:
        answer.close()


def left(storage: ObjectStore, key: str) -> list[str]:
    job_id = key.split("/")[1]
    return [found.key for page in storage.listing.pages(job_id) for found in page]


CONTENT = array("I", range(PART_SIZE // 2)).tobytes()
"""Content of two parts in which no run of bytes is repeated at the same place of a part."""


@pytest.mark.parametrize(
    "size", [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE - 1, 2 * PART_SIZE]
)
def test_every_boundary(storage: ObjectStore, key: str, size: int) -> None:
    content = CONTENT[:size]
    put(storage, key, content)
    try:
        assert fetch(storage, key) == content
        known = storage._client.stat_object(storage.bucket, key)
        assert known.size == size
        assert known.content_type == "text/plain"
        assert known.metadata is not None
        # R18: the upload of a larger file began before they were known, and setting them later is a copy.
        assert known.metadata.get("x-amz-meta-rows") == ("7" if size < PART_SIZE else None)
        assert left(storage, key) == [key]
    finally:
        storage.removal.remove(key)


class Spy(ObjectStore):
    """Records the parts of an upload."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.under_way = 0
        self.most = 0
        self.checksums: dict[int, str] = {}
        self.lock = threading.Lock()
        self.fail_at: int | None = None
        self._original = self._client._upload_part
        vars(self._client)["_upload_part"] = self._part

    def _part(self, bucket: str, key: str, data: bytes, headers: Any, upload: str, number: int) -> str:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.checksums[number] = headers["x-amz-checksum-crc32"]
        try:
            time.sleep(0.05)
            if number == self.fail_at:
                raise OSError("the network broke")
            return self._original(bucket, key, data, headers, upload, number)
        finally:
            with self.lock:
                self.under_way -= 1


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Use the smallest parts of S3."""
    monkeypatch.setattr("stream_app.storage.object_store.PART_SIZE", 5 * 2**20)
    return 5 * 2**20


def test_parts_are_sent_in_parallel(
    storage: ObjectStore, settings: Settings, key: str, small_parts: int
) -> None:
    spy = Spy(settings)
    put(spy, key, CONTENT)
    try:
        assert spy.most == PARALLEL
        pieces = [CONTENT[start : start + small_parts] for start in range(0, len(CONTENT), small_parts)]
        assert spy.checksums == {
            number: base64.b64encode(zlib.crc32(piece).to_bytes(4, "big")).decode()
            for number, piece in enumerate(pieces, 1)
        }
        assert fetch(storage, key) == CONTENT
    finally:
        storage.removal.remove(key)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_part_that_fails_leaves_nothing(
    storage: ObjectStore, settings: Settings, key: str, small_parts: int, number: int
) -> None:
    """No other part is being sent at the abort, because it would never be removed."""
    spy = Spy(settings)
    spy.fail_at = number
    aborted_with: list[int] = []
    abort = spy._client._abort_multipart_upload

    def aborting(*arguments: Any) -> None:
        aborted_with.append(spy.under_way)
        abort(*arguments)

    spy._client._abort_multipart_upload = aborting  # type: ignore[assignment]
    with pytest.raises(Retryable, match="the network broke"):
        put(spy, key, CONTENT)
    assert aborted_with == [0]
    assert left(storage, key) == []


def test_a_part_that_fails_slowly_ends_the_upload_soon(
    storage: ObjectStore, settings: Settings, key: str, small_parts: int
) -> None:
    """Even if many other parts were sent since it began."""
    spy = Spy(settings)
    sent: list[int] = []
    others_are_sent, has_failed = threading.Event(), threading.Event()

    def part(*arguments: Any) -> str:
        number = arguments[-1]
        sent.append(number)
        if number == 1:
            assert others_are_sent.wait(patient(WITHIN))
            has_failed.set()
            raise OSError("the network broke")
        if number == 10:
            others_are_sent.set()
        return "tag"

    spy._client._upload_part = part  # type: ignore[method-assign, assignment]

    def chunks() -> Iterator[bytes]:
        for number in range(40):
            yield CONTENT[:small_parts]
            if number > 10:
                assert has_failed.wait(patient(WITHIN))
                time.sleep(0.05)  # until its error is noted

    with pytest.raises(Retryable, match="the network broke"):
        spy.put(key, chunks(), content_type="t/p", file_name="f", metadata=dict)
    assert 10 <= len(sent) < 30
    assert left(storage, key) == []


@pytest.mark.parametrize("size", [5, 2 * PART_SIZE])
def test_an_upload_whose_answer_is_lost_leaves_no_object(
    storage: ObjectStore, settings: Settings, key: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the object, but its answer is lost. An error of the abort must not hide that."""
    store = ObjectStore(settings)
    execute = Minio._execute

    def executing(self: Minio, method: str, *arguments: Any, **options: Any) -> Any:
        answer = execute(self, method, *arguments, **options)
        if method == "POST" and "uploadId" in options.get("query_params", {}):
            raise OSError("the answer is lost")
        if method == "PUT" and not options.get("query_params"):
            raise OSError("the answer is lost")
        if method == "HEAD":
            raise OSError("this one too")
        return answer

    monkeypatch.setattr(Minio, "_execute", executing)
    with pytest.raises(Retryable, match="the answer is lost"):
        put(store, key, CONTENT[:size])
    assert left(storage, key) == []


def test_a_part_that_is_damaged_in_transit_is_refused(storage: ObjectStore, key: str) -> None:
    """The checksum is that of the original content."""
    client = storage._client
    upload = client._create_multipart_upload(storage.bucket, key, {"x-amz-checksum-algorithm": "CRC32"})
    wrong: Any = {"x-amz-checksum-crc32": base64.b64encode(b"\0\0\0\1").decode()}
    try:
        with pytest.raises(S3Error):
            client._upload_part(storage.bucket, key, b"damaged", wrong, upload, 1)
    finally:
        client._abort_multipart_upload(storage.bucket, key, upload)


def test_source_that_fails_between_parts(storage: ObjectStore, key: str, small_parts: int) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT[: 2 * small_parts + 1]
        raise Rejected("no more")

    with pytest.raises(Rejected, match="no more"):
        storage.put(key, chunks(), content_type="t/p", file_name="f", metadata=dict)
    assert left(storage, key) == []


def test_an_error_that_comes_with_200(
    storage: ObjectStore, settings: Settings, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 can fail to complete an upload after it has begun its response."""
    store = ObjectStore(settings, retry_seconds=0)
    url_open = Minio._url_open
    error = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>too late</Message></Error>"

    def opening(self: Minio, method: str, *arguments: Any) -> Any:
        if method == "POST" and "uploadId" in (arguments[5] or {}):
            return HTTPResponse(error, status=200)
        return url_open(self, method, *arguments)

    monkeypatch.setattr(Minio, "_url_open", opening)
    with pytest.raises(Outage, match="InternalError: too late"):
        put(store, key, CONTENT)
    assert left(storage, key) == []


def test_more_parts_than_a_store_accepts(
    storage: ObjectStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PARTS", 1)
    with pytest.raises(Rejected, match="larger than the limit of 0 GiB; narrow the export"):
        put(storage, key, CONTENT)
    assert left(storage, key) == []


def test_the_whole_has_a_checksum_where_the_store_keeps_them(storage: ObjectStore, key: str) -> None:
    """Then the store changes metadata in place. SeaweedFS keeps none, and takes them all the same."""
    with open_multipart_upload(storage._client, storage.bucket, key, {}) as upload:
        upload.add(CONTENT[:PART_SIZE])
        upload.add(CONTENT[PART_SIZE:])
    try:
        answer = storage._client._execute(
            "HEAD", storage.bucket, key, headers={"x-amz-checksum-mode": "ENABLED"}
        )
        whole = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
        assert answer.headers.get("x-amz-checksum-crc32", whole) == whole
        if answer.headers.get("Server") == "MinIO":
            assert answer.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    finally:
        storage.removal.remove(key)
