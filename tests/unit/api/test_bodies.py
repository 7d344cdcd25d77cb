"""The values that a body can have for an integer (S23), and how deep values can be nested."""

import importlib
import json
import time
from collections.abc import Callable
from pkgutil import walk_packages
from typing import Annotated, Any, get_args

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter, ValidationError

import api
from api.error_handlers import install
from api.middleware.request_context import MAX_BODY
from api.schedules.schemas import ScheduleOrder
from tests.rows import each_row

INTEGERS = (int, int | None)


def bodies() -> list[type[BaseModel]]:
    """Return the models of all bodies that the API reads."""
    modules = [importlib.import_module(found.name) for found in walk_packages(api.__path__, "api.")]
    found = {
        field.field_info.annotation
        for module in modules
        for route in getattr(getattr(module, "router", None), "routes", ())
        for field in route.dependant.body_params
    }
    return sorted((model for model in found if isinstance(model, type)), key=lambda model: model.__name__)


def within(model: type[BaseModel]) -> list[tuple[type[BaseModel], str]]:
    """Yield the integer fields of a model and of the models in it."""
    found = []
    for name, field in model.model_fields.items():
        if field.annotation in INTEGERS:
            found.append((model, name))
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found += within(part)
    return found


def parts() -> list[type[BaseModel]]:
    """Return the models of all bodies and the models in them."""
    found, left = set[type[BaseModel]](), list(bodies())
    while left:
        model = left.pop()
        if model not in found:
            found.add(model)
            annotations = [field.annotation for field in model.model_fields.values()]
            inner = [part for one in annotations for part in (one, *get_args(one))]
            left += [part for part in inner if isinstance(part, type) and issubclass(part, BaseModel)]
    return sorted(found, key=lambda model: model.__name__)


FOUND = [pair for model in bodies() for pair in within(model)]


def test_the_bodies_have_integer_fields() -> None:
    assert {name for _, name in FOUND} >= {"day", "delay"}


@each_row(("model", "name"), FOUND)
@each_row("value", [False, True, "1", 1.0, 1.5, [1]])
def test_an_integer_field_accepts_only_integers(model: type[BaseModel], name: str, value: Any) -> None:
    field = model.model_fields[name]
    adapter: TypeAdapter[Any] = TypeAdapter(_annotated(field))
    assert adapter.validate_python(1) == 1
    with pytest.raises(ValidationError):
        adapter.validate_python(value)


@pytest.mark.parametrize(
    "wrap", [lambda value: {"a": value}, lambda value: [value]], ids=["objects", "lists"]
)
def test_no_field_accepts_values_that_json_cannot_hold(wrap: Callable[[Any], Any]) -> None:
    """Also not within a field: pydantic writes 255 levels, and the reader of events reads 200."""
    accepted = []
    for model in parts():
        for name in model.model_fields:
            accepted += [
                (model.__name__, name, levels)
                for levels in (21, 199, 300, 900)
                if not _problems(model, name, _nested(wrap, levels))
            ]
            if name in ("filters", "parameters"):
                assert _problems(model, name, _nested(wrap, 19)) == []
                assert _problems(model, name, _nested(wrap, 21)) == ["too_deep"]
    assert accepted == []


@pytest.mark.parametrize(
    ("field", "step"),
    [
        ("unknown", 1),
        ("window", 9),
        ("filters", 9),
        pytest.param("window", 1, marks=pytest.mark.slow),
        pytest.param("filters", 1, marks=pytest.mark.slow),
    ],
)
async def test_a_body_with_too_many_levels_is_an_error_of_the_caller(field: str, step: int) -> None:
    """Python reads about as many levels as it shows in an error; which number is the limit can change."""
    app = FastAPI()
    install(app)

    async def order(body: ScheduleOrder) -> Any:
        return body.model_dump(mode="json")

    app.add_api_route("/schedules", order, methods=["POST"])
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        for levels in (250, *range(900, 1000, step)):
            body = f'{{"{field}": {{"a": {"[" * levels}{"]" * levels}}}}}'
            answer = await client.post(
                "/schedules", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code in (400, 422), (levels, answer.text)


def _problems(model: type[BaseModel], name: str, value: Any) -> list[str]:
    """Return the types of the errors in a field of this value."""
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return [item["type"] for item in error.errors() if item["loc"][0] == name]
    return []


def _nested(wrap: Callable[[Any], Any], levels: int) -> Any:
    value = wrap(1)
    for _ in range(levels - 1):
        value = wrap(value)
    return {"a": value}


def _annotated(field: Any) -> Any:
    return Annotated[field.annotation, field]


def _each(model: type[BaseModel], value: Any) -> dict[str, Any]:
    return {name: value for name in model.model_fields}  # noqa: C420


LARGEST = {
    "names": lambda model: {f"n{number}": 1 for number in range(60_000)},
    "a long name": lambda model: {"n" * 900_000: 1},
    "long lists": lambda model: _each(model, [{}] * 10_000),
    "objects": lambda model: _each(model, {f"n{number}": [] for number in range(3_000)}),
}


WIDEST = max(bodies(), key=lambda model: len(model.model_fields))


@pytest.mark.parametrize("make", LARGEST.values(), ids=LARGEST)
@pytest.mark.parametrize(
    "model",
    [WIDEST, *(pytest.param(one, marks=pytest.mark.slow) for one in bodies() if one is not WIDEST)],
    ids=lambda model: model.__name__,
)
async def test_errors_of_a_large_body_have_a_short_answer(
    model: type[BaseModel], make: Callable[[type[BaseModel]], dict[str, Any]]
) -> None:
    """S11: other calls wait while an answer is built."""
    app = FastAPI()
    install(app)

    async def read(body: Any) -> None:
        raise AssertionError("the body is not valid")

    read.__annotations__["body"] = model
    app.add_api_route("/", read, methods=["POST"])
    content = json.dumps(make(model), separators=(",", ":"))
    assert len(content) < MAX_BODY
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        await client.post("/", json={"first": 1})
        began = time.process_time()
        answer = await client.post("/", content=content, headers={"Content-Type": "application/json"})
    assert time.process_time() - began < 2.5
    assert answer.status_code == 422
    assert len(answer.content) <= 64 * 1024
