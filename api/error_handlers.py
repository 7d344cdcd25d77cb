"""Handlers that answer every error with a problem, also errors of the framework."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.errors import FieldProblem, Problem, not_found, problem_of, title
from api.middleware.head_requests import route_of
from api.middleware.paths import loggable
from api.parameters import fields_at, unknown_name
from streaming_exporter.errors import ExporterError
from streaming_exporter.validation import sentence

MAX_PROBLEMS = 50
"""Limit of the listed errors of one request: a body can have very many."""
MAX_NAME = 200
"""Characters of the name of a field in an error."""

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Install the handlers."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(ExporterError, _on_exporter_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RecursionError, _on_recursion_error)


def request_id(request: Request) -> str | None:
    """Return the id that the middleware gave the request."""
    return getattr(request.state, "request_id", None)


async def _on_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return error.response(request_id(request))


async def _on_exporter_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ExporterError):
        raise error
    problem = problem_of(error)
    if problem.status >= 500:
        log.warning("request.failed", path=loggable(request.url.path), error=str(error))
    return problem.response(request_id(request))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    problems = [
        FieldProblem(
            field=(".".join(map(str, item["loc"][1:])) or str(item["loc"][0]))[:MAX_NAME],
            message=_message(request, item),
        )
        for item in found[:MAX_PROBLEMS]
    ]
    places = {str(item["loc"][0]) for item in found}
    if any(item["type"] == "json_invalid" for item in found):
        problem = Problem(400, "invalid_json", "The body is not valid JSON")
    elif places == {"path"}:
        problem = not_found()
    else:
        first, more = problems[0], len(found) - len(problems)
        rest = f" ({more:,} further errors are not listed)" if more else ""
        problem = Problem(
            422,
            "invalid_request",
            f"{first.field}: {first.message}{rest}",
            field=first.field,
            errors=problems,
        )
    return problem.response(request_id(request))


def _message(request: Request, item: dict[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        *path, name = item["loc"][1:]
        body = getattr(request.scope.get("route"), "body_field", None)
        return unknown_name("field", str(name), fields_at(body.field_info.annotation, path) if body else ())
    return sentence(item)


async def _on_recursion_error(request: Request, error: Exception) -> Response:
    """Answer a body with more levels than Python can show: its JSON was just read with the same limit.

    A call without a body cannot be the cause. Its error is one of the service.
    """
    if getattr(request.scope.get("route"), "body_field", None) is None:
        raise error
    log.warning("request.failed", path=loggable(request.url.path), exc_info=error)
    problem = Problem(400, "invalid_json", "The body has too many levels of objects and lists")
    return problem.response(request_id(request))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = title(error.status_code).lower().replace(" ", "_")
    detail = error.detail
    if error.status_code == 404:
        code = "no_such_call"  # not that of a job that does not exist: programs go on after that one
    if error.status_code in (404, 405):
        detail = f"There is no call {request.method} {request.url.path}. /docs lists all calls"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return Problem(error.status_code, code, detail, headers=headers).response(request_id(request))


def _methods(request: Request) -> set[str]:
    """Return all methods of the path. The framework has only those of the first route that matches."""
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    found = {method for method in methods if route_of(request.scope, method) is not None}
    return found | ({"HEAD"} if "GET" in found else set())
