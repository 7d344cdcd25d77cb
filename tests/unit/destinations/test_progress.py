"""What is known of earlier places of a destination."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream_app.datasets.destinations import SftpDestination
from stream_app.destinations.progress import DeliveryProgress, text_of_left
from stream_app.notifications.notification import RequestSummary
from tests.unit.notifications.notifications import notification

PATH = "in/j1/1.csv"


def on(host: str) -> SftpDestination:
    fields = {"user": "u", "password_file": "/nothing", "known_hosts": "/nothing", "prefix": "in"}
    return SftpDestination.model_validate({"name": "acme", "kind": "sftp", "host": host, **fields})


def attempt(host: str, before: DeliveryProgress | None = None) -> DeliveryProgress:
    """Return the progress at the begin of an attempt."""
    about = notification(progress={} if before is None else before.as_json())
    return DeliveryProgress.of(about, cast(RequestSummary, SimpleNamespace(schedule_id=None)), on(host))


FIRST: dict[str, Any] = {"files": 2, "path": PATH, "writing": 1, "zone": "Europe/Berlin"}

LEFT = "files that were {}sent before the destination was moved could not be removed from its earlier place"


@pytest.mark.parametrize(
    ("first", "files", "text"),
    [
        ({}, 2, "2 " + LEFT.format("")),
        ({"files": 0, "sent_files": 2, "writing": 2}, 2, "2 " + LEFT.format("")),  # a removal has begun
        ({"files": 0}, 0, LEFT.format("possibly ")),  # the worker died before it could record a file
        ({"files": 0, "removed": True}, None, None),
        ({"files": 0, "writing": 0}, None, None),
    ],
    ids=["sent", "partly removed", "begun", "removed", "not begun"],
)
def test_a_place_that_possibly_has_files_is_kept_when_the_destination_is_moved(
    first: dict[str, Any], files: int | None, text: str | None
) -> None:
    moved = attempt("b.test", replace(attempt("a.test"), **FIRST | first))
    assert [item["files"] for item in moved.left] == ([] if files is None else [files])
    assert moved.earlier_files(PATH, 3) == (0 if files is None else files or 3)
    assert moved.earlier_files("in/other/1.csv", 3) == 0
    assert text_of_left(0, moved.elsewhere) == text
    again = attempt("c.test", replace(moved, path=PATH, writing=2))
    assert [item["files"] for item in again.left] == [item["files"] for item in moved.left] + [0]
    at_least = "at least " if files else ""
    assert text_of_left(0, again.elsewhere) == at_least + (text or LEFT.format("possibly "))


@pytest.mark.parametrize("found", [True, False])
def test_a_destination_that_is_moved_back_gets_all_files_again_at_the_same_paths(found: bool) -> None:
    """People were told what is left there, or it was found under another name: it is possibly removed."""
    first = replace(attempt("a.test"), **FIRST)
    moved = replace(attempt("b.test", first), path=PATH).looked(PATH, found)
    assert (len(moved.left), len(moved.elsewhere), len(moved.certainly_elsewhere(PATH))) == (
        (1, 0, 0) if found else (1, 1, 1)
    )
    back = attempt("a.test", replace(moved, writing=2, removed=True))
    assert (back.files, back.path, back.zone, back.left) == (0, PATH, "Europe/Berlin", ())
    assert (back.is_begun, back.sent_files) == (True, 2), "they are removed with the rest"
    away = attempt("c.test", replace(back, writing=3))
    assert [(item["files"], item["path"]) for item in away.left] == [(2, PATH)]


def test_attempts_that_waited_for_locked_files_are_counted_for_one_set_at_one_place() -> None:
    waiting = replace(attempt("a.test"), **FIRST, waits=2)
    assert attempt("a.test", waiting).waits == 2
    assert attempt("a.test", replace(waiting, removed=True)).waits == 0
    assert attempt("b.test", waiting).waits == 0
