"""Parameters of a query that a call does not know are refused: a misspelt one would be left out unseen."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from starlette.requests import Request

from api.errors import Problem


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """That there is no ``kind`` of that name, and which one was probably meant."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, 1)
    said = f"there is no {kind} {name[:100]!r}"
    if near:
        return f"{said}; did you mean {near[0]!r}? allowed: {', '.join(names)}"
    return f"{said}; allowed: {', '.join(names)}" if names else said


def fields_at(model: Any, path: Sequence[Any]) -> list[str]:
    """The fields of the model at ``path`` below ``model``; none where there is no model."""
    found = _model_in(model)
    for part in path:
        field = found.model_fields.get(part) if found is not None and isinstance(part, str) else None
        found = _model_in(field.annotation) if field is not None else None
    return list(found.model_fields) if found is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as ``Model | None`` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


async def reject_unknown_parameters(request: Request) -> None:
    """Dependency of every call: refuse what its query must not have, where it has parameters at all.

    Raises:
        Problem: it names the parameter, and which one was probably meant.
    """
    names = set(_names(getattr(request.scope.get("route"), "dependant", None)))
    for name in request.query_params if names else ():
        if name not in names:
            raise Problem(422, "unknown_parameter", unknown("parameter", name, names), field=name[:100])


def _names(dependant: Any) -> Iterator[str]:
    if dependant is not None:
        yield from (field.alias for field in dependant.query_params)
        for part in dependant.dependencies:
            yield from _names(part)
