"""Probes: is this process alive, and can it do its work."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.operations.access import can_see_details
from api.services import InjectedServices

router = APIRouter(tags=["probes"])


class Health(BaseModel):
    """Each part, and whether it answers: ``ok`` or ``unavailable``; why is in the log."""

    status: str
    parts: dict[str, str] = {}


@router.get(
    "/healthz", operation_id="getHealth", summary="Whether the process is alive", response_model=Health
)
async def healthz() -> Health:
    """Asks nobody else, so that an outage elsewhere restarts nothing here."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Whether the parts that the API needs answer",
    response_model=Health,
    responses={503: {"model": Health, "description": "A part does not answer"}},
)
async def readyz(services: InjectedServices, request: Request, response: Response) -> Health:
    """Asks the parts at most once a second. Which of them answer is told as `EXPORTER_PROBE_DETAILS` says."""
    parts = await services.readiness.parts()
    ready = all(state == "ok" for state in parts.values())
    if not ready:
        response.status_code = 503
    shown = parts if await can_see_details(request) else {}
    return Health(status="ok" if ready else "unavailable", parts=shown)
