"""Serves metrics and readiness on a port of their own, which no user needs to reach."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.background import keep_running
from api.operations.routes import details
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
async def served(services: ApiServices) -> AsyncIterator[None]:
    """Serve the metrics and the readiness on a port of their own until the end of the block.

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

    async def readyz(_: Request) -> Response:
        parts = await services.readiness.parts()
        ready = all(state == "ok" for state in parts.values())
        health = await details(services, "ok" if ready else "unavailable", parts)
        return JSONResponse(health.model_dump(mode="json"), 200 if ready else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/readyz", readyz)])
