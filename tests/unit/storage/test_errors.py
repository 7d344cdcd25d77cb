"""The kinds of a store's errors (P10, P11, R17), the sizes of parts (R18), keys of attempts (R4)."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from minio.error import InvalidResponseError, S3Error, ServerError

from stream_app.storage import parts
from stream_app.storage.checksums import HashedStream
from stream_app.storage.errors import (
    KIND_BY_CODE,
    ErrorKind,
    ForeignAnswer,
    is_retryable,
    kind_of,
    store_errors,
)
from stream_app.storage.listing import new_key_suffix, object_key
from stream_app.storage.parts import (
    MAX_PARTS,
    PART_SIZE,
    TemporaryDiskError,
    largest_file,
    largest_file_on,
    part_size,
    split_into_parts,
)
from streaming_exporter.errors import NeedsOperator, Outage, Rejected, Retryable
from tests.rows import each_row

RAISED = {
    ErrorKind.PASSES: Outage,
    ErrorKind.OPERATOR: NeedsOperator,
    ErrorKind.REFUSED: Rejected,
    ErrorKind.FAULT: Retryable,
}

WELL_KNOWN = [
    "AccessDenied", "BadDigest", "EntityTooLarge", "EntityTooSmall", "ExpiredToken", "InternalError",
    "InvalidAccessKeyId", "InvalidArgument", "InvalidBucketName", "InvalidDigest", "InvalidObjectState",
    "InvalidPart", "InvalidPartOrder", "InvalidRange", "InvalidRequest", "InvalidStorageClass",
    "InvalidToken", "KeyTooLongError", "MalformedXML", "MethodNotAllowed", "MissingContentLength",
    "NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NotImplemented", "OperationAborted",
    "PermanentRedirect", "PreconditionFailed", "QuotaExceeded", "RequestTimeTooSkewed",
    "RequestTimeout", "ServiceUnavailable", "SignatureDoesNotMatch", "SlowDown", "TemporaryRedirect",
    "TooManyRequests", "XMinioStorageFull",
]  # fmt: skip


def answer(code: str, status: int) -> S3Error:
    response: Any = urllib3.HTTPResponse(status=status)
    return S3Error(response, code, "said so", "/b/k", "r", "h")


@each_row("code", sorted(KIND_BY_CODE))
def test_each_code_becomes_the_error_of_its_kind(code: str) -> None:
    """The status does not matter."""
    for status in (400, 403, 404, 409, 500, 501, 503):
        error = answer(code, status)
        with pytest.raises(RAISED[KIND_BY_CODE[code]]) as raised, store_errors():
            raise error
        assert type(raised.value) is RAISED[KIND_BY_CODE[code]]
        assert code in str(raised.value)
        assert is_retryable(error) is (KIND_BY_CODE[code] is ErrorKind.PASSES)


def test_the_most_frequent_codes_are_in_the_table() -> None:
    assert set(WELL_KNOWN) <= KIND_BY_CODE.keys()


@each_row(
    ("status", "meaning"),
    [
        (400, ErrorKind.FAULT), (401, ErrorKind.OPERATOR), (403, ErrorKind.OPERATOR), (404, ErrorKind.FAULT),
        (405, ErrorKind.REFUSED), (408, ErrorKind.PASSES), (409, ErrorKind.FAULT), (413, ErrorKind.REFUSED),
        (429, ErrorKind.PASSES), (500, ErrorKind.PASSES), (501, ErrorKind.REFUSED), (502, ErrorKind.PASSES),
        (503, ErrorKind.PASSES), (507, ErrorKind.PASSES), (599, ErrorKind.PASSES),
    ],
)  # fmt: skip
def test_an_unknown_code_is_judged_by_its_status(status: int, meaning: ErrorKind) -> None:
    assert kind_of("SomethingNew", status) is meaning
    assert kind_of(None, status) is meaning


def test_users_do_not_see_the_stores_message() -> None:
    """Neither its message nor an invalid code is shown."""
    for code in ("AccessDenied", "<script>"):
        with pytest.raises(NeedsOperator) as raised, store_errors():
            raise answer(code, 403)
        assert "said so" not in raised.value.reason
        assert "<" not in raised.value.reason


@pytest.mark.parametrize(
    "error",
    [
        ServerError("502", 502),
        InvalidResponseError(200, "text/html", "<html>"),
        ForeignAnswer("a page"),
        urllib3.exceptions.ReadTimeoutError(None, "/", "late"),  # type: ignore[arg-type]
        urllib3.exceptions.ProtocolError("reset"),
    ],
)
def test_an_answer_that_is_not_of_s3_is_retryable(error: Exception) -> None:
    assert is_retryable(error)
    with pytest.raises(Outage), store_errors():
        raise error


def test_ten_thousand_parts_hold_five_tebibytes() -> None:
    """R18: the part in memory stays small."""
    assert largest_file() >= 5 * 2**40
    sizes = [part_size(number) for number in range(1, MAX_PARTS + 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] == PART_SIZE
    assert max(size for size in sizes if size <= parts.IN_MEMORY) <= 16 * 2**20
    assert min(sizes) >= 5 * 2**20, "S3 takes no smaller ones but the last"


@pytest.mark.parametrize("chunk", [1, 7, 10, 64, 1_000])
@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 30, 31, 100, 257])
def test_a_stream_is_split_without_losing_a_byte(
    chunk: int, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18: parts of 10 bytes, then of 20, then of 50 on disk."""
    monkeypatch.setattr(parts, "LARGER", ((2, 2), (4, 5)))
    monkeypatch.setattr(parts, "IN_MEMORY", 20)
    content = bytes(number % 251 for number in range(total))
    stream = HashedStream(content[start : start + chunk] for start in range(0, total, chunk))
    made = [bytes(part) for part in stream.parts(10)]
    assert b"".join(made) == content
    assert stream.size == total
    expected = [part_size(number, 10) for number in range(1, len(made) + 1)]
    assert [len(part) for part in made[:-1]] == expected[:-1]
    assert not made or 0 < len(made[-1]) <= expected[-1]


def test_a_huge_part_is_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "IN_MEMORY", 5)
    (part,) = split_into_parts(iter([b"0123456"]), 10)
    assert not isinstance(part, bytes)
    assert bytes(part) == b"0123456"


def test_a_part_without_references_gives_its_memory_to_a_later_part() -> None:
    """As many parts have memory as are collected or sent at a time."""
    chunk = bytes(range(10))
    made = split_into_parts(iter([chunk] * 7), 10)
    first = next(made)
    second = next(made)
    assert isinstance(first, memoryview), "mapped memory"
    assert isinstance(second, memoryview)
    assert second.obj is not first.obj, "the first part is in use"
    assert bytes(first) == chunk
    memory = first.obj
    del first
    third = next(made)
    assert isinstance(third, memoryview)
    assert third.obj is memory
    assert [bytes(part) for part in (second, third, *made)] == [chunk] * 6


def test_an_upload_gives_its_memory_back_to_the_system() -> None:
    made = split_into_parts(iter([b"0123456789" * 3]), 10)
    part = next(made)
    assert isinstance(part, memoryview)
    mapped = weakref.ref(part.obj)
    del part
    assert len(list(map(bytes, made))) == 2
    del made
    assert mapped() is None


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(st.binary(max_size=40), max_size=30), st.sets(st.integers(0, 60)))
def test_parts_keep_their_content_while_they_are_in_use(chunks: list[bytes], kept: set[int]) -> None:
    in_use = []
    seen = b""
    for number, part in enumerate(split_into_parts(iter(chunks), 10)):
        seen += bytes(part)
        if number in kept:
            in_use.append((part, bytes(part)))
        del part
    assert seen == b"".join(chunks)
    assert all(bytes(part) == content for part, content in in_use)


@pytest.mark.parametrize("few", [0, 3, 7, 100])
@given(st.lists(st.binary(max_size=8), max_size=12))
def test_a_last_part_of_few_bytes_needs_no_mapped_memory(few: int, chunks: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "FEW_BYTES", few)
        made = list(split_into_parts(iter(chunks), 10))
    assert b"".join(map(bytes, made)) == b"".join(chunks)
    assert [len(part) for part in made[:-1]] == [10] * len(made[:-1])
    assert [isinstance(part, bytes) for part in made] == [len(part) <= min(few, 9) for part in made]


def test_a_chunk_that_changes_later_does_not_change_its_part() -> None:
    changing = bytearray(b"first")

    def chunks() -> Iterator[Any]:
        yield changing
        changing[:] = b"later"
        yield b"!"

    assert [bytes(part) for part in split_into_parts(chunks(), 10)] == [b"first!"]


def test_no_two_attempts_have_the_same_key() -> None:
    """R4: not even two attempts with the same number."""
    job_id = uuid4()
    keys = {object_key(job_id, 1, "f", suffix=new_key_suffix()) for _ in range(1_000)}
    assert len(keys) == 1_000


def test_a_full_disk_is_no_error_of_the_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux has a device that is always full."""
    monkeypatch.setattr(parts, "IN_MEMORY", 5)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    for chunk in (b"0123456", bytes(2**20)):  # when the part is complete, and before
        with pytest.raises(TemporaryDiskError, match="temporary folder") as raised, store_errors():
            list(split_into_parts(iter([chunk]), 2**21))
        assert raised.value.code == "temporary_disk"
        assert not isinstance(raised.value, Outage)


def test_a_missing_folder_is_no_error_of_the_object_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts, "IN_MEMORY", 5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert parts.temporary_bytes() == 0
    with pytest.raises(TemporaryDiskError), store_errors():
        list(split_into_parts(iter([b"0123456"]), 10))


@pytest.mark.parametrize(
    ("free_mib", "gib"), [(0, 27), (191, 27), (192, 89), (3 * 1024 - 1, 89), (3 * 1024, 5589)]
)
def test_the_largest_file_depends_on_the_free_disk(free_mib: int, gib: int) -> None:
    """Two large parts are sent and one is collected at a time."""
    assert largest_file_on(free_mib * 2**20) // 2**30 == gib


def test_the_largest_file_is_found_without_going_through_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each export asks for it in the event loop: 10,000 parts took 1.3 ms."""

    def counted(*_: object) -> int:
        raise AssertionError("a part was looked at")

    monkeypatch.setattr(parts, "part_size", counted)
    assert largest_file_on(3 * 2**30) > largest_file_on(0)
