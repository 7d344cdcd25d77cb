"""A route has the texts that are given to it, and otherwise those of its docstring."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from api.documented_route import DocumentedRoute


async def documented() -> None:
    """Return nothing.

    Nothing is returned.
    """


async def undocumented() -> None:
    pass


@pytest.mark.parametrize(
    ("endpoint", "given", "texts"),
    [
        (documented, {}, ("Return nothing", "Nothing is returned.")),
        (documented, {"summary": "Nothing"}, ("Nothing", "Nothing is returned.")),
        (undocumented, {"summary": "Nothing", "description": "At all."}, ("Nothing", "At all.")),
        (undocumented, {}, ("Undocumented", None)),
    ],
)
def test_given_texts_replace_those_of_the_docstring(
    endpoint: Any, given: dict[str, str], texts: tuple[str, str | None]
) -> None:
    router = APIRouter(route_class=DocumentedRoute)
    router.add_api_route("/", endpoint, **given)  # type: ignore[arg-type]
    app = FastAPI()
    app.include_router(router)
    operation = app.openapi()["paths"]["/"]["get"]
    assert (operation["summary"], operation.get("description")) == texts
