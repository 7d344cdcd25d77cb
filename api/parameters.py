"""Parameters of a query that a call does not know are refused: a misspelt one would be left out unseen."""

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request

from api.nearest import unknown
from api.problems import Problem


async def known_parameters(request: Request) -> None:
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
