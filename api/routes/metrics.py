"""For Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.services import Container

router = APIRouter(tags=["probes"])


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Numbers for Prometheus",
    response_class=PlainTextResponse,
)
async def metrics(services: Container) -> Response:
    """The queue and this process, without anything about a user; a worker has its own on another port."""
    return Response(await services.watching.tell(), media_type=CONTENT_TYPE_LATEST)
