"""What is removed from a destination when the rest of a set cannot be sent, and what is counted as left."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest
from minio.error import S3Error
from urllib3 import BaseHTTPResponse, HTTPResponse

from stream_app.datasets.destinations import Destination
from stream_app.destinations import transfer as transfers
from stream_app.destinations.errors import DestinationError, FileUnavailable, TransferInterrupted
from stream_app.destinations.s3 import S3Session
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.destinations.sftp import SftpSession
from stream_app.destinations.transfer import Transfer
from stream_app.exports.task import ExportedFile
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import NeedsOperator, Rejected, Retryable


class Store:
    """The service's own store, which cannot give a file."""

    bucket = "own"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def chunks(self, *_: object) -> Iterator[bytes]:
        raise self.error


class Place:
    """A destination with paths, and what a session finds at each of them."""

    def __init__(self, found: Mapping[str, bool | Exception | None]) -> None:
        self.found = found
        self.removed: list[str] = []
        self.compared: list[str] = []

    def remove_leftovers(self, path: str) -> None:
        pass

    def copy(self, *_: object) -> bool:
        return False

    def put(self, _: OutgoingFile, content: Iterator[bytes]) -> None:
        list(content)

    def has(self, file: OutgoingFile) -> bool | None:
        self.compared.append(file.path)
        found = self.found[file.path]
        if isinstance(found, Exception):
            raise found
        return found

    def remove(self, path: str) -> None:
        self.removed.append(path)


def file(path: str) -> OutgoingFile:
    return OutgoingFile(path, path, "text/csv", 1, "")


@pytest.fixture
def discarded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the transfer of files at a place, of which ``done`` are complete."""

    def made(place: Place, done: int) -> Transfer:
        @contextmanager
        def opened(*_: object) -> Iterator[Place]:
            yield place

        monkeypatch.setattr(transfers, "open_session", opened)
        return Transfer(
            job_id="j1",
            destination=cast(Destination, None),
            settings=cast(Settings, None),
            storage=cast(ObjectStore, None),
            files=[cast(ExportedFile, SimpleNamespace(key="k")) for _ in place.found],
            outgoing=[file(path) for path in place.found],
            manifest=(file("j1/manifest.json"), b"{}"),
            tag="t",
            attempt=2,
            done=done,
            record=lambda: None,
        )

    return made


def test_all_files_of_the_job_are_removed_and_none_is_left(discarded: Any) -> None:
    place = Place({"a": True, "b": False, "c": True})
    transfer = discarded(place, 2)
    transfer.discard()
    assert place.removed == ["j1/manifest.json", "c", "a"]
    assert transfer.left == 0


def test_files_that_were_removed_before_an_error_are_not_counted_as_left(discarded: Any) -> None:
    place = Place({"a": True, "b": DestinationError("away"), "c": True, "d": True})
    transfer = discarded(place, 3)
    with pytest.raises(DestinationError, match="away"):
        transfer.discard()
    assert place.removed == ["j1/manifest.json", "d", "c"]
    assert transfer.left == 2


@pytest.mark.parametrize(("doubtful", "removed", "left"), [(0, "cba", 0), (1, "cb", 1), (9, "", 3)])
def test_files_that_are_possibly_of_a_job_that_was_sent_to_another_machine_are_left_and_counted(
    discarded: Any, doubtful: int, removed: str, left: int
) -> None:
    place = Place({"a": True, "b": True, "c": True})
    transfer = discarded(place, 3)
    transfer.doubtful = doubtful
    with suppress(DestinationError) if left else nullcontext():
        transfer.discard()
    assert place.removed == ["j1/manifest.json", *removed]
    assert transfer.left == left


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (Rejected("gone", code="no_file"), True),
        (Rejected("no reads now", code="store_refused"), False),
        (NeedsOperator("no rights", reason="no rights"), False),
        (Retryable("away"), False),
    ],
    ids=str,
)
def test_a_set_is_given_up_for_a_lost_file_only_if_the_store_does_not_have_it(
    discarded: Any, error: Exception, lost: bool
) -> None:
    transfer = discarded(Place({"j1/a": False}), 0)
    transfer.storage = Store(error)
    with pytest.raises(FileUnavailable) as caught:
        transfer.run()
    assert caught.value.lost is lost


def test_the_result_of_a_look_is_recorded_before_what_was_found_is_removed(discarded: Any) -> None:
    """The next attempt would find nothing, and report the removed files as left at an earlier place."""
    place, recorded = Place({"j1/a": True, "j1/b": True}), []
    transfer = discarded(place, 0)
    transfer.earlier, transfer.is_begun = 2, False
    transfer.record_look = lambda: recorded.append((transfer.is_same_place, list(place.removed)))
    transfer.discard()
    assert recorded == [(True, [])]
    assert place.removed == ["j1/manifest.json", "j1/b", "j1/a"]
    assert (transfer.most, transfer.left) == (2, 0)


def test_nothing_is_removed_where_nothing_was_begun_and_nothing_is_found(discarded: Any) -> None:
    place = Place({"j1/a": False})
    transfer = discarded(place, 0)
    transfer.earlier, transfer.is_begun = 1, False
    transfer.discard()
    assert (transfer.is_same_place, place.removed) == (False, [])


def test_paths_that_cannot_be_read_keep_their_files_and_the_rest_is_removed(discarded: Any) -> None:
    place = Place({"a": True, "b": None, "c": None})
    transfer = discarded(place, 2)
    with pytest.raises(DestinationError) as caught:
        transfer.discard()
    assert caught.value.detail == "2 paths cannot be read, so their files were not removed"
    assert place.removed == ["j1/manifest.json", "a"]
    assert transfer.left == 1


def test_no_file_is_removed_if_the_claim_was_lost_while_it_was_compared(
    discarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that has the delivery now can have sent it meanwhile."""
    place = Place({"a": True})
    transfer = discarded(place, 1)

    def has(_: OutgoingFile) -> bool:
        transfer.held_until = time.monotonic() - 1
        return True

    monkeypatch.setattr(place, "has", has)
    with pytest.raises(TransferInterrupted):
        transfer.discard()
    assert place.removed == ["j1/manifest.json"]


@pytest.mark.parametrize(
    ("code", "found"), [("AccessDenied", None), ("Forbidden", None), ("NoSuchKey", False)]
)
def test_keys_that_can_only_write_know_nothing_of_an_object(code: str, found: bool | None) -> None:
    class Client:
        def stat_object(self, *_: object) -> None:
            response: BaseHTTPResponse = HTTPResponse(status=403)
            raise S3Error(response, code, "no", "/in/a", None, None, "acme", "in/a")

    session = object.__new__(S3Session)
    session.__dict__.update(_client=Client(), _bucket="acme", _prefix="in")
    assert session.has(file("a")) is found


@pytest.mark.parametrize(
    ("path", "uploads", "aborted"), [("own/a", ("1",), ["0", "1"]), ("a", ("1",), ["1"]), ("a", (), [])]
)
def test_uploads_of_others_to_a_shared_path_are_not_aborted(
    path: str, uploads: tuple[str, ...], aborted: list[str]
) -> None:
    class Client:
        def __init__(self) -> None:
            self.aborted: list[str] = []

        def _list_multipart_uploads(self, _: str, prefix: str) -> SimpleNamespace:
            found = [SimpleNamespace(object_name=prefix, upload_id=number) for number in ("0", "1")]
            return SimpleNamespace(uploads=found)

        def _abort_multipart_upload(self, _bucket: str, _key: str, upload: str) -> None:
            self.aborted.append(upload)

    session, client = object.__new__(S3Session), Client()
    options = SessionOptions("t", 2, lambda: False, uploads, lambda path: path.startswith("own/"))
    session.__dict__.update(_client=client, _bucket="acme", _prefix="in", _options=options)
    session.remove_leftovers(path)
    assert client.aborted == aborted


def test_the_comparison_of_a_large_file_ends_when_the_transfer_is_stopped() -> None:
    stops = iter([False, True])
    read: list[int] = []

    def call(answer: Any) -> Any:
        if isinstance(answer, asyncssh.SFTPAttrs):
            return answer
        answer.close()
        read.append(1)
        return b"x"

    session = object.__new__(SftpSession)
    options = SessionOptions("t", 1, lambda: next(stops))
    sftp = SimpleNamespace(stat=lambda _: asyncssh.SFTPAttrs(size=3 * 2**20))
    session.__dict__.update(_path=lambda path: path, _sftp=sftp, _call=call, _options=options)
    with pytest.raises(TransferInterrupted):
        session.has(OutgoingFile("a", "a", "text/csv", 3 * 2**20, ""))
    assert read == [1]
