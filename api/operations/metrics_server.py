"""Serves metrics, liveness and readiness on a port of their own, which no user needs to reach."""

import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from api.background import keep_running
from api.operations.routes import NEEDED, NEEDS, details, status_of
from api.services import ApiServices

log = structlog.get_logger(__name__)

END_SECONDS = 5
"""Time in which calls end when the server ends."""


class _Server(uvicorn.Server):
    """A server that handles no signals: the server of the API handles them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serve_metrics(services: ApiServices) -> AsyncIterator[None]:
    """Serve the metrics, the liveness and the readiness on a port of their own until the end of the block.

    Without ``EXPORTER_METRICS_PORT`` it serves nothing. If the port cannot be opened, this is logged, and the
    API runs without it. A server that ends is started again.
    """
    host, port = services.settings.metrics_host, services.settings.metrics_port
    if port is None:
        yield
        return
    try:
        first = _listen(host, port)
    except OSError as error:
        log.error("metrics.listen_failed", host=host, port=port, error=str(error))
        yield
        return
    sockets = [first]

    async def serve() -> None:
        await _serve(services, sockets.pop() if sockets else _listen(host, port))

    try:
        async with keep_running("metrics_server", serve):
            yield
    finally:
        for unused in sockets:
            unused.close()


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


async def _serve(services: ApiServices, listening: socket.socket) -> None:
    """Serve on the socket, and close it. What still reads an answer at the end of the API can read it."""
    config = uvicorn.Config(
        _application(services),
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=50,
        timeout_graceful_shutdown=END_SECONDS,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listening])
    finally:
        if server.started:
            await server.shutdown([listening])
        listening.close()


def _application(services: ApiServices) -> Starlette:
    async def metrics(_: Request) -> Response:
        return Response(await services.queue_metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def readyz(request: Request) -> Response:
        needs = request.query_params.get("needs")
        if needs is not None and not re.fullmatch(NEEDS, needs):
            return PlainTextResponse(f"needs: allowed: {', '.join(NEEDED)}\n", 422)
        parts = await services.readiness.parts()
        status = status_of(parts, needs)
        health = await details(services, status, parts)
        return JSONResponse(health.model_dump(mode="json"), 503 if status == "unavailable" else 200)

    async def healthz(_: Request) -> Response:
        # Users cannot use up the connections of this port, so a probe here does not fail under load.
        return JSONResponse({"status": "ok"})

    handlers = {"/metrics": metrics, "/readyz": readyz, "/healthz": healthz}
    return Starlette(routes=[Route(path, handler) for path, handler in handlers.items()])
