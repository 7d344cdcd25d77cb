"""Health, readiness and metrics of the API, and who can read their details."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from api import audit_log
from api.auth.authenticator import Authenticator
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_responses
from api.operations.readiness import INTERNAL_PARTS, WRITE_CHECK
from api.services import ApiServices, InjectedServices
from stream_app.settings import Settings
from stream_app.unsafe_settings import is_public
from streaming_exporter.errors import ExporterError

router = APIRouter(tags=["probes"], route_class=DocumentedRoute)

NEEDED = ("database", WRITE_CHECK, "kafka", "object_store")
"""Parts that a caller can name as the ones that it needs."""
NEEDS = rf"({'|'.join(NEEDED)})(,({'|'.join(NEEDED)}))*"
"""The names of parts, with commas between them."""


class DatasetsHealth(BaseModel):
    """The datasets file: ``problem`` is why a changed file cannot be used; then the last one is in use."""

    loaded_at: datetime
    problem: str | None = None


class Health(BaseModel):
    """``parts`` maps each part of the service to ``ok`` or ``unavailable``. The log has the reason.

    ``status`` is ``ok``, ``unavailable``, or ``degraded``: none of the unavailable parts is in ``needs``.

    ``sources`` does the same for the source databases; ``unknown`` means that one was not asked yet. Neither
    they nor a fault of the datasets file make the service unready: other exports go on. ``paused`` is what
    workers do not claim because operators have paused it.
    """

    status: str
    parts: dict[str, str] = {}
    sources: dict[str, str] = {}
    datasets: DatasetsHealth | None = None
    paused: list[str] = []


@router.get("/healthz", operation_id="getHealth", response_model=Health)
async def healthz() -> Health:
    """Check whether the process is alive.

    This call uses no other part of the service, so an outage elsewhere does not restart this process.
    """
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    response_model=Health,
    responses={503: {"model": Health, "description": "A part is unavailable"}, **problem_responses(422)},
)
async def readyz(
    services: InjectedServices,
    request: Request,
    response: Response,
    needs: Annotated[
        str | None,
        Query(
            pattern=f"^{NEEDS}$",
            max_length=100,
            description="Only these parts make the API unready, such as `database,kafka`. "
            "Default: all but `database_writes`",
        ),
    ] = None,
) -> Health:
    """Check whether the parts that the API needs are available.

    The API checks the parts at most once a second.

    Status and lists need only the database, new requests also `database_writes`: that it can be written.
    `/readyz?needs=database` is a probe for a load balancer. `EXPORTER_PROBE_DETAILS` decides who sees which
    parts are available.
    """
    parts = await services.readiness.parts()
    status = status_of(parts, needs)
    if status == "unavailable":
        response.status_code = 503
    if not await can_see_details(request):
        return Health(status=status)
    return await details(services, status, parts)


def status_of(parts: dict[str, str], needs: str | None) -> str:
    """Return the status of the API if it needs the parts ``needs`` and its own.

    Without ``needs`` it needs all parts but ``database_writes``, because a database that cannot be written
    still answers everything that reads.
    """
    away = {name for name, state in parts.items() if state != "ok"}
    if not away:
        return "ok"
    needed = {*needs.split(","), *INTERNAL_PARTS} if needs else away - {WRITE_CHECK}
    return "degraded" if away.isdisjoint(needed) else "unavailable"


async def details(services: ApiServices, status: str, parts: dict[str, str]) -> Health:
    """Return the readiness with everything that operators see."""
    watcher = services.datasets_watcher
    return Health(
        status=status,
        parts=parts,
        sources=services.source_monitor.states(),
        datasets=DatasetsHealth(loaded_at=watcher.loaded_at, problem=watcher.problem),
        paused=await services.queue_metrics.paused(),
    )


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=PlainTextResponse,
    responses=problem_responses(401, 403),
)
async def metrics(services: InjectedServices, request: Request) -> Response:
    """Metrics in the format of Prometheus.

    Metrics of the job queue and of this process. They contain nothing about a user.

    Everyone can read them while only this machine can reach the API. Otherwise they need the role
    `exports:operate`. `EXPORTER_PROBE_DETAILS` changes this. `EXPORTER_METRICS_PORT` serves the same metrics
    on a port of its own.
    """
    await require_details_access(request)
    return Response(await services.queue_metrics.render(), media_type=CONTENT_TYPE_LATEST)


def details_are_public(settings: Settings, host: str | None) -> bool:
    """Return whether everyone who can reach an API that listens on ``host`` can read the details."""
    if settings.probe_details == "auto":
        return not is_public(settings, host)
    return settings.probe_details == "open"


async def require_details_access(request: Request) -> None:
    """Refuse a caller who is not allowed to read the metrics and the state of the parts.

    Raises:
        Problem: 401 without a valid token, 403 without the role.
    """
    if request.app.state.public_details:
        return
    authenticator: Authenticator = request.app.state.services.authenticator
    user = await authenticator.bearer(request.headers.get("Authorization", ""))
    audit_log.set_actor(user)
    if not user.is_operator:
        raise Problem(
            403,
            "role_missing",
            "Reading the metrics needs the role exports:operate. Ask for that role, or read them from "
            "EXPORTER_METRICS_PORT",
        )


async def can_see_details(request: Request) -> bool:
    """Return whether the caller can read the details of the service."""
    try:
        await require_details_access(request)
    except (Problem, ExporterError):
        return False
    return True
