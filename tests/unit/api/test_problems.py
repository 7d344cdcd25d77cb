"""Every error is a problem document, without internal details."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict

from api import error_handlers as handlers
from api import errors as problems
from api.errors import Problem
from api.middleware.request_context import RequestContext
from streaming_exporter.errors import ExporterError, Rejected, Retryable, Unreadable
from tests.rows import each_row


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


def application() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    handlers.install(app)
    app.add_middleware(RequestContext, max_body=100)
    errors: dict[str, Exception] = {
        "rejected": Rejected("no such column", code="unknown_column", field="filters.x", allowed=["a", "b"]),
        "unreadable": Unreadable("contains NUL"),
        "retryable": Retryable("state database: postgresql://user:password@host is away"),
        "internal": ExporterError("nobody should see this"),
        "unforeseen": ValueError("password=hunter2"),
        "problem": Problem(429, "too_many_jobs", "wait", headers={"Retry-After": "30"}),
    }

    @app.get("/error/{name}")
    async def fail(name: str) -> None:
        raise errors[name]

    @app.post("/body")
    async def body(content: Body) -> str:
        return content.name

    @app.get("/items/{item}")
    async def item(item: UUID, limit: Annotated[int, Query(ge=1)] = 1) -> str:
        return str(item)

    @app.get("/id")
    async def request_id(request: Request) -> Any:
        return handlers.request_id(request)

    return app


async def call(method: str, path: str, **arguments: Any) -> httpx2.Response:
    transport = httpx2.ASGITransport(application())
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **arguments)


def document(response: httpx2.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == response.status_code
    assert content["request_id"] == response.headers["x-request-id"]
    assert {"type", "title", "detail", "code"} <= content.keys()
    return content


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("rejected", 422, "unknown_column"),
        ("unreadable", 422, "unreadable"),
        ("retryable", 503, "temporarily_unavailable"),
        ("internal", 500, "internal_error"),
        ("unforeseen", 500, "internal_error"),
        ("problem", 429, "too_many_jobs"),
    ],
)
async def test_errors(name: str, status: int, code: str) -> None:
    response = await call("GET", f"/error/{name}")
    content = document(response)
    assert (response.status_code, content["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (status in (429, 503))
    for secret in ("password", "hunter2", "nobody should"):
        assert secret not in response.text


async def test_a_rejection_names_the_field_and_what_is_allowed() -> None:
    content = document(await call("GET", "/error/rejected"))
    assert content["field"] == "filters.x"
    assert content["detail"] == "filters.x: no such column; allowed: a, b"


@each_row(
    ("method", "path", "arguments", "status", "code", "field"),
    [
        ("GET", "/nowhere", {}, 404, "no_such_call", None),
        ("GET", "/body/", {}, 404, "no_such_call", None),
        ("PUT", "/body", {}, 405, "method_not_allowed", None),
        ("POST", "/body", {"content": b"{"}, 400, "invalid_json", None),
        ("POST", "/body", {"content": b"\xff"}, 400, "bad_request", None),
        ("POST", "/body", {"content": b"[" * 90}, 400, None, None),
        ("POST", "/body", {"json": {}}, 422, "invalid_request", "name"),
        ("POST", "/body", {"json": {"name": 5}}, 422, "invalid_request", "name"),
        ("POST", "/body", {"json": {"name": "a", "nmae": 1}}, 422, "invalid_request", "nmae"),
        ("POST", "/body", {"json": {"name": "x" * 100}}, 413, "content_too_large", None),
        ("GET", "/items/none", {}, 404, "not_found", None),
        ("GET", "/items/0c9cbb9e-5e70-4c2a-9df1-3a2a0b6b4a3d?limit=0", {}, 422, "invalid_request", "limit"),
    ],
)
async def test_errors_of_the_framework_are_problems(
    method: str, path: str, arguments: dict[str, Any], status: int, code: str | None, field: str | None
) -> None:
    headers = {"content-type": "application/json"} if method == "POST" else {}
    response = await call(method, path, headers=headers, **arguments)
    content = document(response)
    assert response.status_code == status
    assert code is None or content["code"] == code
    assert content.get("field") == field


async def test_a_body_that_does_not_arrive_times_out() -> None:
    async def drips() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    app = FastAPI()
    handlers.install(app)
    app.add_middleware(RequestContext, seconds=0.05)

    @app.post("/body")
    async def body(content: Body) -> str:
        return content.name

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        response = await client.post("/body", content=drips(), headers={"content-type": "application/json"})
    assert document(response)["code"] == "request_timeout"
    assert (response.status_code, response.headers["connection"]) == (408, "close")


@pytest.mark.parametrize("given", ["abc-123", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])
async def test_a_clients_request_id_is_kept(given: str) -> None:
    response = await call("GET", "/id", headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == response.json() == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "<script>", "a\tb"])
async def test_a_harmful_request_id_is_replaced(given: str) -> None:
    response = await call("GET", "/id", headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == response.json() != given


@each_row("status", [400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 429, 500, 503])
def test_every_status_has_a_title(status: int) -> None:
    assert problems.title(status)
