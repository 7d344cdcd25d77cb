"""Decimal numbers keep their digits on every way into a filter: event, body, command, datasets file."""

import importlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from pkgutil import walk_packages
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Body, FastAPI
from hypothesis import given
from hypothesis import strategies as st

import api
from api.exact_bodies import ExactRoute
from producers.arguments import parse_filters
from stream_app.datasets.file import load_datasets
from stream_app.datasets.models import Dataset
from stream_app.datasets.typed_values import checked_text
from stream_app.exports.columns import Column, Kind
from streaming_exporter.errors import Unreadable
from streaming_exporter.event_json import read_json
from streaming_exporter.exact_numbers import CAN_BE_ROUNDED, exact_number

AMOUNT = Column("amount", "numeric(18,6)", "numeric", Kind.NUMERIC)
LONG = [
    "123456789012.123456", "-0.12345678901234567891", "12345678901234567.5", "1234567890123456.7e-3",
    "9999999999999999e-5", "0.30000000000000001", "1e-400", "4.9e-325", "1.0000000000000000001",
    "0.100000000000000010",
]  # fmt: skip
SHORT = [
    "1.5", "0.1", "-2.50", "1e5", "1.10", "0.000001", "123456789.123456", "0.30000000000000004", "-0.0",
    "1e22", "19.989999999999998", "0.10000000000000001", "1.9989999999999998e+01", "-84.700000000000003",
]  # fmt: skip

NUMBERS = st.tuples(
    st.sampled_from(["", "-"]),
    st.one_of(st.just("0"), st.from_regex(r"[1-9][0-9]{0,24}", fullmatch=True)),
    st.one_of(st.just(""), st.from_regex(r"\.[0-9]{1,24}", fullmatch=True)),
    st.one_of(st.just(""), st.from_regex(r"[eE][+-]?[0-9]{1,2}", fullmatch=True)),
).map("".join)  # fmt: skip


def by_event(text: str) -> Any:
    return read_json(b'{"a":{"eq":%b}}' % text.encode())["a"]["eq"]


def by_command(text: str) -> Any:
    return parse_filters([], f'{{"a":{{"gte":{text}}}}}')["a"]["gte"]


def by_list_of_a_command(text: str) -> Any:
    return parse_filters([f"a:in=[{text}]"])["a"]["in"][0]


WAYS: list[Callable[[str], Any]] = [by_event, by_command, by_list_of_a_command]


@pytest.mark.parametrize("way", WAYS)
@given(NUMBERS)
def test_a_number_is_read_with_its_digits(way: Callable[[str], Any], text: str) -> None:
    found = way(text)
    if found in doubles_printed_as(text):
        return
    assert Decimal(str(found)) == Decimal(text)
    if len(text.lstrip("-0.")) <= 15:  # such a number stays one
        assert isinstance(found, int | float)
    if abs(Decimal(text).adjusted()) < 300:
        assert Decimal(checked_text(AMOUNT, found, "filters.amount")) == Decimal(text)


def doubles_printed_as(text: str) -> list[float]:
    """Return the double that a program prints as ``text`` with 17 digits, if the shortest text is another."""
    double = float(text)
    digits = Decimal(text).as_tuple().digits
    is_printed = len(digits) <= 17 and Decimal(f"{double:.16e}") == Decimal(text)
    return [double] if is_printed and Decimal(repr(double)) != Decimal(text) else []


@pytest.mark.parametrize("way", WAYS)
@given(st.integers(0, 10**9).map(lambda cents: cents / 100), st.sampled_from([".17g", ".16e"]))
def test_an_amount_that_is_printed_with_17_digits_is_the_amount(
    way: Callable[[str], Any], amount: float, form: str
) -> None:
    """As jsoncpp, older PHP and older .NET print doubles: 19.99 is ``19.989999999999998``."""
    assert way(f"{amount:{form}}") == amount


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("texts", "kind"), [(LONG, str), (SHORT, float)])
def test_only_what_a_double_rounds_is_a_text(way: Callable[[str], Any], texts: list[str], kind: type) -> None:
    for text in texts:
        found = way(text)
        assert (type(found), found) == (kind, text if kind is str else float(text))


@given(NUMBERS)
def test_a_message_with_a_rounded_number_is_recognised(text: str) -> None:
    if exact_number(text) == text and abs(Decimal(text).adjusted()) < 290:
        assert CAN_BE_ROUNDED.search(text.encode())


def test_numbers_beyond_all_doubles_are_still_refused() -> None:
    for number in (b"1e400", b"-123456789012345678e999", b"1" * 400 + b".5"):
        with pytest.raises(Unreadable, match="too large"):
            read_json(b'{"a": [%b]}' % number)
    assert read_json(b'{"a": 1e-99999999999999999999}') in ({"a": 0.0}, {"a": "1e-99999999999999999999"})


async def test_a_body_is_read_with_all_digits() -> None:
    app, router = FastAPI(), APIRouter(route_class=ExactRoute)

    @router.post("/echo")
    async def echo(filters: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
        return {name: repr(value) for name, value in filters.items()}

    app.include_router(router)
    body = "{" + ",".join(f'"{text}": {text}' for text in (*LONG, *SHORT)) + "}"
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("/echo", content=body, headers=headers)
        shown = {text: repr(float(text)) for text in SHORT} | {text: repr(text) for text in LONG}
        assert answer.json() == shown
        refused = await client.post("/echo", content='{"a": 1.', headers=headers)
        assert refused.status_code == 422


def test_all_calls_with_values_read_all_digits() -> None:
    modules = [importlib.import_module(found.name) for found in walk_packages(api.__path__, "api.")]
    routes = {
        (route.path, *sorted(route.methods)): route
        for module in modules
        for route in getattr(getattr(module, "router", None), "routes", ())
        for field in route.dependant.body_params
        if {"filters", "parameters"} & set(getattr(field.field_info.annotation, "model_fields", ()))
    }
    assert {"/exports/jobs", "/exports/schedules"} <= {path for path, *_ in routes}
    assert {key for key, route in routes.items() if not isinstance(route, ExactRoute)} == set()


def test_a_datasets_file_is_read_with_all_digits(tmp_path: Path) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(
        '[datasets.d]\nquery = "select * from t where a = :limit or a = :other"\n'
        '[datasets.d.parameters.limit]\ntype = "numeric"\ndefault = 123456789012.123456\n'
        '[datasets.d.parameters.other]\ntype = "numeric"\nchoices = [0.5, 123_456_789_012.123456]\n'
    )
    dataset = load_datasets(file).datasets["d"]
    assert isinstance(dataset, Dataset)
    default, choices = dataset.parameters["limit"].default, dataset.parameters["other"].choices
    assert choices is not None
    found = [checked_text(AMOUNT, value, "x") for value in (default, *choices)]
    assert found == ["123456789012.123456", "0.5", "123456789012.123456"]


def test_what_is_no_number_in_a_datasets_file_is_unchanged() -> None:
    assert [repr(exact_number(text)) for text in ("nan", "-inf", "+inf")] == ["nan", "-inf", "inf"]
    assert json.loads("[1.25]", parse_float=exact_number) == [1.25]
