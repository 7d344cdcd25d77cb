"""No validator's own words reach a person (texts 20, 39 to 42)."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings
from typer.testing import CliRunner

import api
import stream_app
import streaming_exporter
from producers.__main__ import cli
from streaming_exporter.errors import Rejected
from streaming_exporter.payloads import ExportRequest
from streaming_exporter.validation import _PATTERNS, PYDANTIC_TYPES, field_of, sentence, with_value
from tests.rows import each_row

OF_PYDANTIC = re.compile(
    r"input should|should be|after validation|valid string|valid dictionary|unable to|pydantic|"
    r"string should|list should|field required|extra inputs|value error|\{(?!file_name|number)\w+\}",
    re.IGNORECASE,
)

CONTEXT = {
    **dict.fromkeys(("ge", "gt", "le", "lt", "min_length", "max_length", "actual_length", "multiple_of"), 2),
    **dict.fromkeys(("max_digits", "decimal_places", "whole_digits", "tz_expected", "tz_actual"), 3),
    **dict.fromkeys(("class_name", "field_type"), "X"),
    "expected": "'a' or 'b'",
    "pattern": "^x$",
    "error": ValueError("it is odd"),
}

WRONG: tuple[object, ...] = (
    None, 3, -1, 10**40, 1.5, float("nan"), "", "x" * 3000, "a b\n", [], [3], ["x"] * 1601, {}, {"x": 3},
    {3: "x"}, True, b"\xff", "\ud800", [{}], [[]], {"x": {"y": []}},
)  # fmt: skip


@each_row("kind", sorted(PYDANTIC_TYPES))
def test_every_type_of_error_has_a_sentence(kind: str) -> None:
    problem = {"type": kind, "loc": ("field",), "msg": "Input should be odd", "input": 3, "ctx": CONTEXT}
    text = sentence(problem)
    assert text
    assert not OF_PYDANTIC.search(text), text


@cache
def models() -> tuple[type[BaseModel], ...]:
    """Return all models of the project but the settings, whose errors say what is allowed themselves."""
    for package in (streaming_exporter, stream_app, api):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"__main__|migrations|conformance|outbox_|django|\.outbox\b", module.name):
                importlib.import_module(module.name)

    def below(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for child in base.__subclasses__():
            yield child
            yield from below(child)

    own = ("streaming_exporter", "stream_app", "api")
    found = {
        child
        for child in below(BaseModel)
        if child.__module__.partition(".")[0] in own and not issubclass(child, BaseSettings)
    }
    return tuple(sorted(found, key=lambda child: (child.__module__, child.__qualname__)))


@cache
def all_errors() -> list[tuple[type[BaseModel], Any]]:
    """Return the errors of wrong values of all models and of each of their fields."""
    return [(model, problem) for model in models() for problem in errors_of(model)]


def errors_of(model: type[BaseModel]) -> Iterator[Any]:
    """Yield the errors of wrong values of a model and of each of its fields.

    Of the items of a list, and of fields that are missing in each value, only the first error is yielded.
    """
    for wrong in WRONG:
        seen = set()
        for content in (wrong, *({name: wrong} for name in model.model_fields)):
            try:
                model.model_validate(content)
            except ValidationError as error:
                for problem in error.errors(include_url=False):
                    place = (problem["type"], *(part for part in problem["loc"] if isinstance(part, str)))
                    if place not in seen:
                        seen.add(place)
                        yield problem


def test_no_model_answers_in_words_of_pydantic() -> None:
    """A walk over all models of the project with wrong values for each of their fields."""
    seen = set()
    for model, problem in all_errors():
        seen.add(problem["type"])
        for text in (sentence(problem), with_value(problem).partition(", got ")[0]):
            assert not OF_PYDANTIC.search(text), (model, problem["loc"], text)
        assert "[" not in field_of(problem)
    assert len(seen) > 15


def test_every_pattern_of_a_model_is_explained() -> None:
    """People do not read regular expressions."""
    for model, problem in all_errors():
        if problem["type"] == "string_pattern_mismatch":
            assert problem["ctx"]["pattern"] in _PATTERNS, (model, problem["loc"])


REQUEST = {"user_id": "u", "export_type": "ledger", "format": "csv"}


@each_row(
    ("change", "text"),
    [
        ({"filters": ["x"]}, 'filters: expected an object such as {"kind": "proof"}, got'),
        ({"columns": []}, "columns: name at least one column, or leave it out for all columns, got"),
        ({"columns": "id"}, 'columns: expected a list such as ["id", "kind"], got'),
        ({"options": {"delimiter": "xx"}}, "options.delimiter: expected one of , ; | tab : ^ ~, got 'xx'"),
        ({"priority": "urgent"}, "priority: expected high, normal or low, got 'urgent'"),
        ({"user_id": ""}, "user_id: it must not be empty, got ''"),
        ({"user_id": 3}, "user_id: expected a text, got 3"),
        ({"recipients": ["a@b.de"] * 51}, "recipients: expected at most 50 values"),
        ({"split": {"rows": 0}}, "split.rows: expected at least 1, got 0"),
        ({"split": {"rows": "5"}}, "split.rows: expected a whole number, got '5'"),
        ({"options": {"header": "maybe"}}, "options.header: expected true or false, got 'maybe'"),
        ({"options": {"timezone": "1"}}, "options.timezone: expected the name of a time zone, such as"),
        ({"name": "a\nb"}, "name: it must be one line without control characters"),
    ],
)
def test_errors_of_requests(change: dict[str, Any], text: str) -> None:
    with pytest.raises(Rejected) as caught:
        ExportRequest.parse(REQUEST | change)
    assert str(caught.value).startswith(text)


def test_claims_are_never_repeated() -> None:
    with pytest.raises(Rejected) as caught:
        ExportRequest.parse(REQUEST | {"claims": {"team": 4711}})
    assert "4711" not in str(caught.value)


def test_errors_of_the_service_keep_their_words() -> None:
    def refuse(value: object) -> object:
        raise PydanticCustomError("own", "It is {what}", {"what": "odd"})

    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[str, AfterValidator(refuse)]).validate_python("x")
    assert sentence(caught.value.errors()[0]) == "it is odd"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["cancel", "abc"], "expected a UUID, such as 4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10, got 'abc'"),
        (["token", "--user-id", "u", "--hours", "x"], "expected a number, got 'x'"),
        (["schedule", "delete", "1"], "expected a UUID, such as"),
    ],
)
def test_errors_of_options(arguments: list[str], text: str) -> None:
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2
    assert text in " ".join(found.output.split())
    assert not OF_PYDANTIC.search(found.output.partition("Error:")[2])
