"""The URLs and claims of a request are in no error, and not in the text of the request."""

import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from streaming_exporter.errors import ExporterError
from streaming_exporter.events import ExportRequest, request_event
from streaming_exporter.payloads import read
from tests.rows import each_row

MARK = "TOPSECRET"
URL = f"slack:https://hooks.example.com/services/{MARK}"
BASE: dict[str, Any] = {"user_id": "u", "export_type": "ledger", "format": "csv"}
WRONG: dict[str, list[object]] = {
    "recipients": [URL, {"to": URL}, [[URL]], [URL] * 60, [{"to": URL}], URL.encode(), [URL, 3]],
    "claims": [
        MARK, [MARK], {"team": {"x": MARK}}, {"team": [[MARK]]}, {"team": MARK * 1000},
        {"team": [MARK] * 300}, {f"c{number}": MARK for number in range(60)},
    ],
    "webhook": [[URL], {"url": URL}, (URL,), {URL}],
}  # fmt: skip


def wrong() -> Iterator[Any]:
    for field, values in WRONG.items():
        for number, value in enumerate(values):
            yield pytest.param(field, value, id=f"{field}-{number}")


def text_of(error: BaseException) -> str:
    """Return all texts of an error with those that it was made from, as a log has them."""
    return "".join((str(error), repr(error), *traceback.format_exception(error)))


@each_row(("field", "value"), list(wrong()))
def test_a_wrong_secret_is_in_no_error(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ExportRequest(**{**BASE, field: value})
    assert MARK not in text_of(caught.value)
    for parse in (ExportRequest.parse, partial(read, ExportRequest)):
        with pytest.raises(ExporterError) as refused:
            parse({**BASE, field: value})
        assert MARK not in text_of(refused.value)
        assert field in str(refused.value), "it says where the error is"
        assert "expected" in str(refused.value), "it says what is allowed"


def test_a_secret_that_has_become_wrong_is_in_no_error() -> None:
    request = ExportRequest(**BASE)
    request.recipients.append({"to": URL})  # type: ignore[arg-type]
    with pytest.raises(ExporterError, match=r"^recipients") as caught:
        request_event(request, source="/test")
    assert MARK not in text_of(caught.value)


def test_an_error_of_another_field_shows_no_secret_of_the_request() -> None:
    secrets = {"recipients": [URL], "claims": {"team": MARK}, "webhook": URL}
    others: list[dict[str, Any]] = [{"user_id": ""}, {"options": 3}, {"split": {}}, {"filters": 3}]
    for other in others:
        with pytest.raises(ExporterError) as caught:
            ExportRequest.parse({**BASE, **secrets, **other})
        assert MARK not in text_of(caught.value)


def test_the_text_of_a_request_and_of_its_event_has_no_secret() -> None:
    request = ExportRequest(**BASE, recipients=[URL], claims={"team": MARK}, webhook=URL)
    event = request_event(request, source="/test")
    for shown in (request, event):
        assert MARK not in f"{shown!r}{shown}"
    assert "export_type='ledger'" in repr(request)
    assert MARK.encode() in event.encode()
