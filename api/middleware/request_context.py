"""Middleware of every request: its id, its trace, the limits of its body, and unexpected errors."""

import asyncio
import re
import time
from collections.abc import Mapping
from http import HTTPMethod
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import audit_log
from api.errors import internal_error
from api.middleware.paths import HEALTH_PATHS, loggable
from api.middleware.response_headers import add_headers
from stream_app.observability import metrics, tracing
from streaming_exporter.traceparent import well_formed

log = structlog.get_logger(__name__)

HEADER = "X-Request-ID"
MAX_BODY = 1024 * 1024
"""Bytes of the largest request body."""
BODY_SECONDS = 30.0
"""Time-out of receiving a body."""

OTHER = "_OTHER"
"""Name of unknown methods in OpenTelemetry's conventions."""

_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestContext:
    """Gives each request an id for the log and the response. A harmless id of the client is kept."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int = MAX_BODY,
        seconds: float = BODY_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Add ``headers`` to every response, beside the defaults of the module ``response_headers``."""
        self._app = app
        self._headers = dict(headers or {})
        self._seconds = seconds
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        span = _span(scope)
        started = False
        began = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _note(span, scope, message["status"])
                metrics.observe_call(
                    _method(scope),
                    getattr(scope.get("route"), "path", None),
                    message["status"],
                    time.perf_counter() - began,
                )
                audit_log.write_line(entry, scope, message["status"])
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                add_headers(headers, self._headers)
            await send(message)

        context = structlog.contextvars.bound_contextvars(request_id=request_id)
        with span, context, audit_log.open_entry() as entry:
            try:
                await self._app(scope, self._bounded(receive), answer)
            except Exception as error:
                log.exception("request.crashed", method=scope["method"], path=loggable(scope["path"]))
                if started:
                    raise
                await internal_error().response(request_id)(scope, receive, answer)
                span.record_error(error)  # has more details than the recorded status

    def _bounded(self, receive: Receive) -> Receive:
        seen = 0
        ends: float | None = asyncio.get_running_loop().time() + self._seconds

        async def bounded() -> Message:
            nonlocal seen, ends
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(
                    408,
                    f"The body did not arrive within {self._seconds:g} s. Send the request again",
                    headers={"Connection": "close"},
                ) from error
            if not message.get("more_body"):
                ends = None
            seen += len(message.get("body", b""))
            if seen > self._max_body:
                raise HTTPException(
                    413,
                    f"The body is larger than the limit of {self._max_body} bytes",
                    headers={"Connection": "close"},
                )
            return message

        return bounded


def _span(scope: Scope) -> tracing.Span:
    """Start a span by the conventions of OpenTelemetry, without the path, which can contain secrets.

    See https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
    """
    if scope["path"] in HEALTH_PATHS:
        return tracing.Span(None, None)
    caller = next(
        (value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None
    )
    method = _method(scope)
    return tracing.span(
        "HTTP" if method == OTHER else method,
        kind="SERVER",
        parent=well_formed(caller),
        attributes={"http.request.method": method, "url.scheme": scope["scheme"]},
    )


def _method(scope: Scope) -> str:
    """Return the method, or :data:`OTHER` for methods that HTTP does not define."""
    method: str = scope["method"]
    return method if method in HTTPMethod.__members__ else OTHER


def _note(span: tracing.Span, scope: Scope, status: int) -> None:
    route = getattr(scope.get("route"), "path", None)
    span.set_attributes(
        {"http.response.status_code": status, "http.route": route},
        name=f"{_method(scope)} {route}".replace(OTHER, "HTTP", 1) if route else None,
    )
    if status >= 500:
        span.record_error(str(status))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid4().hex
