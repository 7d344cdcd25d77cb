"""What the removal of the rest of a larger set does if the destination refuses it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import asyncssh
import pytest
from minio.error import S3Error
from urllib3 import BaseHTTPResponse, HTTPResponse

from stream_app.datasets.destinations import Destination
from stream_app.destinations import transfer as transfers
from stream_app.destinations.errors import (
    AWAY,
    FAILED,
    IN_USE,
    NEVER,
    NOT_PERMITTED,
    NOT_REMOVED,
    DestinationError,
)
from stream_app.destinations.s3_errors import s3_errors
from stream_app.destinations.session import OutgoingFile
from stream_app.destinations.sftp_errors import sftp_errors
from stream_app.destinations.surplus import UNKNOWN_SURPLUS, UNREADABLE_SURPLUS
from stream_app.destinations.transfer import Transfer
from stream_app.exports.task import ExportedFile
from stream_app.notifications.shared_paths import SetsAtPath
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore


def sftp_status(code: int) -> DestinationError:
    with pytest.raises(DestinationError) as caught, sftp_errors():
        raise asyncssh.SFTPError(code, "no")
    return caught.value


def s3_answer(status: int, code: str) -> DestinationError:
    response: BaseHTTPResponse = HTTPResponse(status=status)
    with pytest.raises(DestinationError) as caught, s3_errors():
        raise S3Error(response, code, "no", "/in/3.csv", None, None, "acme", "in/3.csv")
    return caught.value


REFUSALS = {
    "SFTP 3": (sftp_status(3), NOT_PERMITTED),
    "SFTP 4": (sftp_status(4), f"{FAILED}; it is possibly full"),
    "SFTP 8": (sftp_status(8), NEVER),
    "S3 403": (s3_answer(403, "AccessDenied"), NOT_PERMITTED),
    "S3 405": (s3_answer(405, "MethodNotAllowed"), NEVER),
    "S3 501": (s3_answer(501, "NotImplemented"), NEVER),
}


class Place:
    """A destination that has all files, and what it answers if one is looked for or removed."""

    def __init__(self, found: DestinationError | bool | None, answer: DestinationError | None) -> None:
        self.found, self.answer = found, answer
        self.calls: list[str] = []
        self.written: list[str] = []
        self.contents: dict[str, str] = {}
        self.recorded: list[bool] = []

    def remove_leftovers(self, path: str) -> None:
        pass

    def copy(self, file: OutgoingFile, *_: object) -> bool:
        self.written.append(file.path)
        return True

    def put(self, file: OutgoingFile, content: Iterator[bytes]) -> None:
        self.written.append(file.path)

    def exists(self, path: str) -> bool | None:
        if isinstance(self.found, DestinationError):
            raise self.found
        return self.found

    def has(self, file: OutgoingFile) -> bool | None:
        content = self.contents.get(file.path)
        if content is None:
            return False if self.contents else None
        return file.sha256 == content

    def remove(self, path: str) -> None:
        self.calls.append(path)
        if self.answer is not None:
            raise self.answer


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Place], Transfer]:
    """Return a function that makes the transfer of two files to a place where a set of five was."""

    def made(place: Place) -> Transfer:
        @contextmanager
        def opened(*_: object) -> Iterator[Place]:
            yield place

        monkeypatch.setattr(transfers, "open_session", opened)
        files = [OutgoingFile(path, path, "text/csv", 1, "") for path in ("1.csv", "2.csv")]
        sending = Transfer(
            job_id="j1",
            destination=cast(Destination, None),
            settings=cast(Settings, None),
            storage=cast(ObjectStore, _Store()),
            files=cast(list[ExportedFile], [_Stored(), _Stored()]),
            outgoing=files,
            manifest=(OutgoingFile("list.json", "list.json", "application/json", 2, ""), b"{}"),
            tag="t",
            attempt=1,
            done=0,
            record=lambda: place.recorded.append(sending.alone),
            further=lambda number: [f"{number}.csv"],
            other_sets=lambda: SetsAtPath(5, 5),
        )
        return sending

    return made


class _Store:
    bucket = "own"


class _Stored:
    key = "k"


@pytest.mark.parametrize(("refusal", "meaning"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("found", [True, None])
def test_a_complete_set_is_sent_where_the_rest_of_a_larger_one_cannot_be_removed(
    transfer: Any, refusal: DestinationError, meaning: str, found: bool | None
) -> None:
    """One refusal is enough: thousands of calls would have the same answer."""
    assert str(refusal) == meaning
    place = Place(found, refusal)
    sending = transfer(place)
    sending.run()
    assert place.written == ["1.csv", "2.csv", "list.json"]
    assert place.calls == ["5.csv"]
    assert (sending.surplus, sending.surplus_error) == (3, refusal.detail)
    assert place.recorded == [False, False]


@pytest.mark.parametrize("refusal", [refusal for refusal, _ in REFUSALS.values()], ids=REFUSALS)
def test_a_destination_that_does_not_say_what_is_there_is_asked_to_remove_it(
    transfer: Any, refusal: DestinationError
) -> None:
    place = Place(refusal, None)
    sending = transfer(place)
    sending.run()
    assert place.written == ["1.csv", "2.csv", "list.json"]
    assert place.calls == ["5.csv", "4.csv", "3.csv"]
    assert (sending.surplus, sending.surplus_error) == (0, None)
    assert place.recorded == [False, False, True], "later jobs look no further than this set"


def test_a_file_with_the_next_number_that_no_known_job_has_sent_stays(transfer: Any) -> None:
    """Its job was deleted, or it is of others. Later jobs look at it again."""
    place = Place(True, None)
    sending = transfer(place)
    sending.other_sets = lambda: SetsAtPath(0, 0)
    sending.run()
    assert place.written == ["1.csv", "2.csv", "list.json"]
    assert (place.calls, place.recorded) == ([], [False, False])
    assert (sending.surplus, sending.surplus_error) == (0, UNKNOWN_SURPLUS)


@pytest.mark.parametrize(
    ("sent", "found", "contents", "removed", "left"),
    [
        (0, True, {"3.csv": "c", "4.csv": "d", "5.csv": "e"}, ["5.csv", "4.csv", "3.csv"], None),
        (0, True, {"3.csv": "of others", "4.csv": "d", "5.csv": "of others"}, ["4.csv"], UNKNOWN_SURPLUS),
        (3, True, {"3.csv": "of others", "4.csv": "of others"}, ["3.csv"], UNKNOWN_SURPLUS),
        (0, True, {}, [], UNREADABLE_SURPLUS),
        (0, None, {}, [], UNREADABLE_SURPLUS),
        (4, None, {}, ["4.csv", "3.csv"], UNREADABLE_SURPLUS),
    ],
)
def test_files_that_were_possibly_sent_to_another_machine_are_removed_only_if_they_are_the_same(
    transfer: Any,
    sent: int,
    found: bool | None,
    contents: dict[str, str],
    removed: list[str],
    left: str | None,
) -> None:
    """The destination was changed since a set of five was sent, of which ``sent`` files came here."""
    place = Place(found, None)
    place.contents = contents
    sending = transfer(place)
    sending.other_sets = lambda: SetsAtPath(sent, 5)
    sending.other_contents = lambda number: [(1, "before"), (1, "..cde"[number - 1])]
    sending.run()
    assert place.written == ["1.csv", "2.csv", "list.json"]
    assert place.calls == removed
    assert (sending.surplus, sending.surplus_error) == (0, left)
    assert sending.alone is (left is None), "later jobs look again"


@pytest.mark.parametrize("begins", [True, False, None])
@pytest.mark.parametrize("found", [True, False, None])
def test_the_list_of_a_job_that_was_sent_before_the_destination_was_changed_stays_if_it_is_there(
    transfer: Any, begins: bool | None, found: bool | None
) -> None:
    place = Place(found, None)
    sending = transfer(place)
    asked: list[bool] = []

    def begin(is_free: bool) -> bool | None:
        asked.append(is_free)
        return begins or is_free or begins

    sending.begin_manifest = begin
    sending.run()
    is_written = begins or (begins is None and found is False)
    assert ("list.json" in place.written) is is_written
    assert asked == [False, *([True] if begins is None and found is False else [])]


@pytest.mark.parametrize(
    ("found", "is_begun", "has", "is_free"),
    [
        (False, False, None, True),
        (True, False, True, False),  # another job's with the same content
        (True, True, True, True),
        (True, True, False, False),
        (None, True, None, False),
        (DestinationError(NOT_PERMITTED), False, None, False),
    ],
)
def test_a_path_is_free_if_it_has_nothing_or_what_the_delivery_has_sent(
    transfer: Any, found: bool | None, is_begun: bool, has: bool | None, is_free: bool
) -> None:
    place = Place(found, None)
    place.contents = {} if has is None else {"1.csv": "" if has else "of others"}
    sending = transfer(place)
    sending.is_begun = is_begun
    assert sending.is_path_free() is is_free


IN_REMOVALS = DestinationError(NOT_REMOVED, detail="4", affects_all=False, is_possibly_busy=True)
LOCKS = {str(status): sftp_status(status) for status in (17, 25, 26, 27, 31)} | {"4": IN_REMOVALS}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
@pytest.mark.parametrize("found", [True, None])
def test_a_locked_rest_is_removed_later(transfer: Any, lock: DestinationError, found: bool | None) -> None:
    place = Place(found, lock)
    sending = transfer(place)
    sending.attempt = 100  # after an outage
    with pytest.raises(DestinationError) as caught:
        sending.run()
    assert (str(caught.value), caught.value.detail) == (IN_USE, lock.detail)
    assert (caught.value.is_busy, caught.value.affects_all) == (True, False)
    assert place.written == ["1.csv", "2.csv"]
    assert place.calls == ["5.csv"]
    assert (sending.waits, len(place.recorded)) == (1, 3)


@pytest.mark.parametrize(
    ("lock", "waits"), [(sftp_status(17), transfers.BUSY_WAITS), (IN_REMOVALS, transfers.POSSIBLY_BUSY_WAITS)]
)
def test_a_rest_that_stays_locked_does_not_hold_up_the_set(
    transfer: Any, lock: DestinationError, waits: int
) -> None:
    place = Place(True, lock)
    sending = transfer(place)
    sending.waits = waits
    sending.run()
    assert place.written == ["1.csv", "2.csv", "list.json"]
    assert (sending.surplus, sending.surplus_error) == (3, lock.detail)


@pytest.mark.parametrize("is_looking", [True, False])
def test_a_destination_that_is_away_gets_the_list_of_the_files_later(transfer: Any, is_looking: bool) -> None:
    away = DestinationError(AWAY)
    place = Place(away if is_looking else True, away)
    with pytest.raises(DestinationError, match=AWAY):
        transfer(place).run()
    assert place.written == ["1.csv", "2.csv"]
