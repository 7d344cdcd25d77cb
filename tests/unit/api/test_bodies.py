"""The values that a body can have for an integer (S23)."""

import importlib
from pkgutil import walk_packages
from typing import Annotated, Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import api

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


FOUND = [pair for model in bodies() for pair in within(model)]


def test_the_bodies_have_integer_fields() -> None:
    assert {name for _, name in FOUND} >= {"day", "delay"}


@pytest.mark.parametrize(("model", "name"), FOUND, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("value", [False, True, "1", 1.0, 1.5, [1]], ids=repr)
def test_an_integer_field_accepts_only_integers(model: type[BaseModel], name: str, value: Any) -> None:
    field = model.model_fields[name]
    adapter: TypeAdapter[Any] = TypeAdapter(_annotated(field))
    assert adapter.validate_python(1) == 1
    with pytest.raises(ValidationError):
        adapter.validate_python(value)


def _annotated(field: Any) -> Any:
    return Annotated[field.annotation, field]
