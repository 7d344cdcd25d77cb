"""A misspelt name in a call is refused with the most similar name (case V17)."""

import re
from collections.abc import Iterator
from typing import Any, get_args
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from api import error_handlers as handlers
from api.jobs.schemas import Order
from api.operations.schemas import CancelOrder, PauseOrder
from api.parameters import fields_at, unknown_name
from api.schedules.schemas import ScheduleOrder, SchedulePatch
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.rows import each_row
from tests.unit.api.apps import app_of, published_paths

SETTINGS = Settings(_env_file=None)
PATHS = published_paths()


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return every model in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(annotation):
        yield from models(part)


def routes(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from routes(inner)


def test_every_model_of_a_body_refuses_unknown_fields() -> None:
    """V17: this holds for all calls, also for future ones."""
    bodies = [route.body_field.field_info.annotation for route in routes(app_of()) if route.body_field]
    found = {model for body in bodies for model in models(body)}
    assert {Order, ScheduleOrder, SchedulePatch} <= found
    assert [model for model in found if model.model_config.get("extra") != "forbid"] == []


@pytest.mark.parametrize(
    ("model", "path", "typed", "meant"),
    [
        (Order, (), "filter", "filters"),
        (Order, (), "colums", "columns"),
        (Order, ("options",), "delimeter", "delimiter"),
        (Order, ("options",), "page-size", "page_size"),
        (Order, ("options",), "Compression", "compression"),
        (ScheduleOrder, (), "time_zone", "timezone"),
        (SchedulePatch, ("options",), "titel", "title"),
    ],
)
def test_the_nearest_name(model: type[BaseModel], path: tuple[str, ...], typed: str, meant: str) -> None:
    assert f"did you mean {meant!r}?" in unknown_name("field", typed, fields_at(model, path))


def test_a_name_without_a_similar_one_gets_the_list() -> None:
    assert unknown_name("field", "zzz", ["b", "a"]) == "there is no field 'zzz'; allowed: a, b"


async def test_the_error_names_the_field_and_the_most_similar_one() -> None:
    """V17: at every place in the body."""
    app = FastAPI()
    handlers.install(app)

    @app.post("/orders")
    async def place(order: Order) -> str:
        return order.format

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
        body = {"export_type": "t", "format": "csv", "options": {"delimeter": ";"}}
        answer = (await client.post("/orders", json=body)).json()
    assert answer["field"] == "options.delimeter"
    assert "did you mean 'delimiter'?" in answer["detail"]


async def _answer(method: str, path: str, **request: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {sign_token(SETTINGS, 'u', ())}"}
    transport = httpx2.ASGITransport(app_of(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        return await client.request(method, path, **request)


async def test_an_unknown_parameter_is_refused() -> None:
    """V17: otherwise a misspelt filter would be ignored, and all jobs would be listed."""
    answer = await _answer("GET", "/exports/jobs?statsu=failed")
    assert answer.status_code == 422
    assert answer.json()["code"] == "unknown_parameter"
    assert answer.json()["field"] == "statsu"
    assert "did you mean 'status'?" in answer.json()["detail"]


BODIES = sorted(
    (method.upper(), path)
    for path, item in PATHS.items()
    for method, call in item.items()
    if "requestBody" in call
)


@each_row(("method", "path"), BODIES)
async def test_a_body_with_a_repeated_name_is_refused(method: str, path: str) -> None:
    """V17: otherwise the first of two conditions on one column would be ignored, and more rows exported."""
    place = re.sub("{[a-z_]+}", str(uuid4()), path)
    body = '{"filters": {"placed_at": {"gte": "2026-01-01"}, "id": 1, "placed_at": {"lt": "2026-02-01"}}}'
    answer = await _answer(method, place, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json().get("code")) == (422, "repeated_field")
    assert answer.json()["field"] == "placed_at"
    assert "'placed_at' is there 2 times" in answer.json()["detail"]


async def test_a_body_that_is_no_json_has_the_same_error_as_before() -> None:
    answer = await _answer("POST", "/exports/jobs", content="{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


TEXTS = [
    (path, parameter["name"])
    for path, item in PATHS.items()
    for parameter in item.get("get", {}).get("parameters", ())
    if parameter["in"] == "query"
]


@each_row(("path", "name"), TEXTS)
async def test_a_repeated_parameter_is_refused(path: str, name: str) -> None:
    """V17: only the last value would count."""
    place = re.sub("{[a-z_]+}", str(uuid4()), path)
    answer = await _answer("GET", place, params=[(name, "1"), (name, "2")])
    assert (answer.status_code, answer.json()["code"]) == (422, "repeated_parameter")
    assert answer.json()["field"] == name


@each_row(("path", "name"), TEXTS)
async def test_a_parameter_with_a_nul_character_is_refused(path: str, name: str) -> None:
    """PostgreSQL cannot compare such a text: the call would fail with 500."""
    place = re.sub("{[a-z_]+}", str(uuid4()), path)
    answer = await _answer("GET", place, params={name: "a\0b"})
    assert (answer.status_code, answer.json()["field"]) == (422, name)
    assert "NUL" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("model", "body"), [(PauseOrder, {"reason": "a\0b"}), (CancelOrder, {"user_id": "a\0b"})]
)
def test_an_order_of_operators_with_a_nul_character_is_refused(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="NUL"):
        model.model_validate(body)
