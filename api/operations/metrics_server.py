"""Serves metrics and readiness on a port of their own, which no user needs to reach."""

import asyncio
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

from api.operations.routes import details
from api.services import ApiServices

log = structlog.get_logger(__name__)


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
    API runs without it.
    """
    host, port = services.settings.metrics_host, services.settings.metrics_port
    if port is None:
        yield
        return
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        log.error("metrics.listen_failed", host=host, port=port, error=str(error))
        yield
        return
    config = uvicorn.Config(
        _application(services), log_config=None, access_log=False, lifespan="off", limit_concurrency=50
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _application(services: ApiServices) -> Starlette:
    async def metrics(_: Request) -> Response:
        return Response(await services.queue_metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def readyz(_: Request) -> Response:
        parts = await services.readiness.parts()
        ready = all(state == "ok" for state in parts.values())
        health = await details(services, "ok" if ready else "unavailable", parts)
        return JSONResponse(health.model_dump(mode="json"), 200 if ready else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/readyz", readyz)])
