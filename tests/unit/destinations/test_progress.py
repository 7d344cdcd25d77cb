"""What is known of earlier places of a destination."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from stream_app.datasets.destinations import SftpDestination
from stream_app.destinations.progress import DeliveryProgress
from stream_app.notifications.notification import Requested
from tests.unit.notifications.notifications import notification

PATH = "in/j1/1.csv"


def on(host: str) -> SftpDestination:
    fields = {"user": "u", "password_file": "/nothing", "known_hosts": "/nothing", "prefix": "in"}
    return SftpDestination.model_validate({"name": "acme", "kind": "sftp", "host": host, **fields})


def attempt(host: str, before: DeliveryProgress | None = None) -> DeliveryProgress:
    """Return the progress at the begin of an attempt."""
    about = notification(progress={} if before is None else before.as_json())
    return DeliveryProgress.of(about, cast(Requested, SimpleNamespace(schedule_id=None)), on(host))


@pytest.mark.parametrize("found", [True, False])
def test_a_destination_that_is_moved_back_continues_unless_its_files_were_possibly_removed(
    found: bool,
) -> None:
    """What was found under another name of the host was removed there with the rest of the set."""
    first = replace(attempt("a.test"), files=1, path=PATH, writing=1, zone="Europe/Berlin")
    moved = replace(attempt("b.test", first), path=PATH).looked(PATH, found)
    assert (len(moved.left), moved.files_left, len(moved.told(PATH))) == ((1, 0, 0) if found else (1, 1, 1))
    back = attempt("a.test", replace(moved, writing=2, removed=True))
    assert (back.files, back.path, back.zone, back.left) == (0 if found else 1, PATH, "Europe/Berlin", ())
