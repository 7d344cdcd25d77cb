"""For Prometheus."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.errors import problem_responses
from api.operations.access import require_details_access
from api.services import InjectedServices

router = APIRouter(tags=["probes"])


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Numbers for Prometheus",
    response_class=PlainTextResponse,
    responses=problem_responses(401, 403),
)
async def metrics(services: InjectedServices, request: Request) -> Response:
    """The queue and this process, without anything about a user.

    Open while only this machine reaches the API; otherwise for the role `exports:operate`, as
    `EXPORTER_PROBE_DETAILS` says. `EXPORTER_METRICS_PORT` serves the same on a port of its own.
    """
    await require_details_access(request)
    return Response(await services.queue_metrics.render(), media_type=CONTENT_TYPE_LATEST)
