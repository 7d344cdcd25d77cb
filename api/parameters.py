"""Refuses unknown and repeated names of parameters and fields, and values that PostgreSQL cannot store.

A misspelt parameter, or the first of two conditions on one column, would otherwise be ignored without notice.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from starlette.requests import Request

from api.errors import Problem
from streaming_exporter.unique_names import RepeatedName, unique_names

NO_NUL = "expected a text without NUL characters"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the text that no ``kind`` has this name, with the allowed names and the most similar one."""
    names = sorted(known)
    near = get_close_matches(name[:100].lower(), names, 1)
    text = f"there is no {kind} {name[:100]!r}"
    if near:
        return f"{text}; did you mean {near[0]!r}? allowed: {', '.join(names)}"
    return f"{text}; allowed: {', '.join(names)}" if names else text


def fields_at(model: Any, path: Sequence[Any]) -> list[str]:
    """Return the fields of the model at ``path`` below ``model``, or none if there is no model."""
    found = _model_in(model)
    for part in path:
        field = found.model_fields.get(part) if found is not None and isinstance(part, str) else None
        found = _model_in(field.annotation) if field is not None else None
    return list(found.model_fields) if found is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


async def reject_unknown_parameters(request: Request) -> None:
    """Refuse unknown and repeated parameters of a call that has parameters, and NUL characters in the others.

    Every call depends on this function.

    Raises:
        Problem: 422 with the name of the parameter and what is allowed.
    """
    names = set(_names(getattr(request.scope.get("route"), "dependant", None)))
    for name, value in request.query_params.multi_items() if names else ():
        if name not in names:
            raise Problem(422, "unknown_parameter", unknown_name("parameter", name, names), field=name[:100])
        if (count := len(request.query_params.getlist(name))) > 1:
            text = f"{name}: it is there {count} times; send it once"
            raise Problem(422, "repeated_parameter", text, field=name)
        if "\0" in value:
            raise Problem(422, "invalid_request", f"{name}: {NO_NUL}", field=name)


async def reject_repeated_fields(request: Request) -> None:
    """Refuse a body of JSON in which an object has a name twice.

    Every call depends on this function.

    Raises:
        Problem: 422 with the name.
    """
    if getattr(request.scope.get("route"), "body_field", None) is None:
        return
    if body := await request.body():
        try:
            json.loads(body, object_pairs_hook=unique_names)
        except RepeatedName as error:
            raise Problem(422, "repeated_field", f"body: {error}", field=error.name) from error
        except ValueError:
            return  # the call itself refuses it, or ignores its body


def without_nul(value: str) -> str:
    """Return ``value``, which goes to the database.

    Raises:
        ValueError: it has a NUL character.
    """
    if "\0" in value:
        raise ValueError(NO_NUL)
    return value


def _names(dependant: Any) -> Iterator[str]:
    if dependant is not None:
        yield from (field.alias for field in dependant.query_params)
        for part in dependant.dependencies:
            yield from _names(part)
