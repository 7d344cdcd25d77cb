"""What is sent of a request is what its fields are: also after a change, and with any value of Python."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streaming_exporter.api_answers import order_of
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest, decode, request_event
from streaming_exporter.json_values import MAX_LEVELS
from streaming_exporter.validation import sentence
from tests.rows import each_row

JOB = UUID("4f1c0de0-0000-4000-8000-000000000001")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
objects = st.dictionaries(texts, texts | st.integers() | st.booleans() | st.lists(texts), max_size=3)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "filters": objects,
    "parameters": objects,
    "claims": st.dictionaries(texts, texts | st.lists(texts, max_size=3), max_size=3),
    "recipients": st.lists(texts, max_size=3),
    "columns": st.lists(texts, min_size=1, max_size=3),
}
"""The fields that are lists or objects, and what is added to them."""


def of_event(request: ExportRequest) -> ExportRequest:
    return ExportRequest.parse(decode(request_event(request, source="/test").encode()).data)


def of_body(request: ExportRequest) -> ExportRequest:
    return ExportRequest.parse({"user_id": request.user_id, **order_of(request)[0]})


def test_the_fields_that_can_be_changed_are_all_tried() -> None:
    request = ExportRequest(user_id="u", export_type="ledger", format="csv", columns=["id"])
    assert {name for name, value in request if isinstance(value, dict | list)} == CHANGES.keys()


@given(st.fixed_dictionaries({}, optional=CHANGES), st.fixed_dictionaries({}, optional=CHANGES))
def test_what_is_added_after_a_request_was_made_is_sent(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    request = ExportRequest(user_id="u", export_type="ledger", format="csv", **first)
    for name, value in second.items():
        field = getattr(request, name)
        if isinstance(field, dict):
            field.update(value)
        elif isinstance(field, list):
            field.extend(value)
    assert of_event(request) == request
    assert of_body(request) == request


def test_fields_that_were_not_given_are_not_sent() -> None:
    request = ExportRequest(user_id="u", export_type="ledger", format="csv")
    given = {"user_id": "u", "export_type": "ledger", "format": "csv"}
    assert request_event(request, source="/test").data == given
    assert order_of(request)[0] == {"export_type": "ledger", "format": "csv"}


class Kind(Enum):
    PROOF = "proof"
    NONE = float("nan")


class WholeNumber:
    """A whole number that is no int, such as those of numpy."""

    def __index__(self) -> int:
        return 3


class Missing(datetime):
    """A time that differs from itself, such as NaT of pandas."""

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = datetime.__hash__


SENT: list[tuple[object, object]] = [
    (1.5, 1.5),
    (Decimal("1.10"), "1.10"),
    (Decimal("1e400"), "1E+400"),
    (JOB, str(JOB)),
    (Kind.PROOF, "proof"),
    (date(2026, 1, 2), "2026-01-02"),
    (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    ((1, 2), [1, 2]),
    ({7}, [7]),
    (None, None),
    ({"gte": Decimal(1), "lt": 2}, {"gte": "1", "lt": 2}),
    (b"proof", "proof"),
    (10**30, 10**30),
]
NAN, INFINITY = float("nan"), float("inf")
REFUSED: list[tuple[object, str]] = [
    (NAN, "amount is no finite number"),
    (INFINITY, "amount is no finite number"),
    (-INFINITY, "amount is no finite number"),
    ([1, NAN], r"amount\[1\] is no finite number"),
    ({"gte": {"x": [NAN]}}, r"amount\.gte\.x\[0\] is no finite number"),
    (Decimal("NaN"), "amount is no finite number"),
    (Decimal("sNaN"), "amount is no finite number"),
    (Decimal("-Infinity"), "amount is no finite number"),
    (Kind.NONE, "amount is no finite number"),
    (Missing(2026, 1, 2), "amount is no finite number and no time"),
    (range(3), "amount is of the type range"),
    ({"x": 1}.keys(), "amount is of the type dict_keys"),
    ([WholeNumber()], r"amount\[0\] is of the type WholeNumber"),
    (b"\xff", "amount is of the type bytes"),
    (object(), "amount is of the type object"),
    ({1.5: "x"}, "amount is a name and of the type float"),
]


def make(field: str, value: object) -> ExportRequest:
    return ExportRequest.model_validate(
        {"user_id": "u", "export_type": "ledger", "format": "csv", field: {"amount": value}}
    )


def change(field: str, value: object) -> ExportRequest:
    request = ExportRequest(user_id="u", export_type="ledger", format="csv")
    getattr(request, field)["amount"] = value
    return request


@each_row("field", ["filters", "parameters"])
@each_row("build", [make, change])
@each_row(("value", "expected"), SENT)
def test_a_value_that_json_has_is_sent_as_it_was_meant(
    field: str, build: Callable[[str, object], ExportRequest], value: object, expected: object
) -> None:
    request = build(field, value)
    for read in (of_event, of_body):
        assert getattr(read(request), field) == {"amount": expected}


ITERATORS: dict[str, tuple[Callable[[], object], object]] = {
    "generator": (lambda: (number for number in (1, 2)), [1, 2]),
    "map": (lambda: map(str, (1, 2)), ["1", "2"]),
    "zip": (lambda: zip((1, 2), "ab", strict=True), [[1, "a"], [2, "b"]]),
    "of an operator": (lambda: {"in": iter([1, 2])}, {"in": [1, 2]}),
    "in a list": (lambda: [1, iter([2])], [1, [2]]),
    "in a tuple": (lambda: {"in": (1, iter([2]))}, {"in": [1, [2]]}),
    "of iterators": (lambda: (iter([number]) for number in (1, 2)), [[1], [2]]),
    "in a set": (lambda: {iter([1])}, [[1]]),
    "empty": (lambda: iter(()), []),
}


@each_row("field", ["filters", "parameters"])
@each_row("build", [make, change])
@each_row(("iterator", "expected"), ITERATORS.values())
def test_an_iterator_is_read_once_and_sent_as_a_list_each_time(
    field: str,
    build: Callable[[str, object], ExportRequest],
    iterator: Callable[[], object],
    expected: object,
) -> None:
    request = build(field, iterator())
    for read in (of_event, of_body, of_event):
        assert getattr(read(request), field) == {"amount": expected}


def test_values_of_an_iterator_are_checked() -> None:
    with pytest.raises(ValidationError, match=r"amount\.in\[1\] is no finite number"):
        make("filters", {"in": iter([1, NAN])})
    value: object = iter([1])
    for _ in range(MAX_LEVELS):
        value = iter([value])
    with pytest.raises(ValidationError, match="too many levels"):
        make("filters", value)


@each_row("field", ["filters", "parameters"])
@each_row(("value", "words"), REFUSED)
def test_a_value_that_json_does_not_have_is_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        make(field, value)
    (problem,) = caught.value.errors()
    assert problem["loc"] == (field,)
    assert "llowed: " in sentence(problem)
    request = change(field, value)
    for send in (lambda: request_event(request, source="/test"), lambda: order_of(request)):
        with pytest.raises(Rejected, match=words) as refused:
            send()
        assert refused.value.field == field
