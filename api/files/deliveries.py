"""Who was told of a job, and whose links still hold."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.auth.authenticator import CurrentUser
from api.errors import problem_responses
from api.jobs.routes import job_data_of
from api.services import InjectedServices
from stream_app.notifications.models import Channel, DeliveryStatus

router = APIRouter(prefix="/exports/jobs", tags=["deliveries"])
log = structlog.get_logger(__name__)


class DeliveryView(BaseModel):
    """One message: ``ambiguous`` may have arrived or not, ``reason`` says why it is not sent."""

    channel: Channel
    address: str
    event: str
    status: DeliveryStatus
    attempts: int
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    revoked: bool


class Deliveries(BaseModel):
    """Everything that was or is to be sent about a job."""

    deliveries: list[DeliveryView]


class Revoked(BaseModel):
    """Whose links hold no longer."""

    addresses: list[str]


@router.get(
    "/{job_id}/deliveries",
    operation_id="listDeliveries",
    summary="Who was told of it, and how that went",
    response_model=Deliveries,
    responses=problem_responses(401, 404, 500, 503),
)
async def list_deliveries(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Deliveries:
    """Mails and webhooks are noted here as soon as the job has ended."""
    await job_data_of(services, user, job_id)
    return Deliveries(
        deliveries=[
            DeliveryView(
                channel=row.channel,
                address=row.address,
                event=row.event,
                status=row.status,
                attempts=row.attempts,
                reason=row.reason,
                created_at=row.created_at,
                finished_at=row.finished_at,
                revoked=row.revoked_at is not None,
            )
            for row in await services.outbox.of_job(job_id)
        ]
    )


@router.delete(
    "/{job_id}/links",
    operation_id="revokeLinks",
    summary="Make the links in mails worthless",
    response_model=Revoked,
    responses=problem_responses(401, 404, 422, 500, 503),
)
async def revoke_links(
    job_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    address: Annotated[str | None, Query(max_length=2000, description="Only this recipient's")] = None,
) -> Revoked:
    """The file stays, and so does the job's own download call. It cannot be undone."""
    await job_data_of(services, user, job_id)
    addresses = await services.outbox.revoke(job_id, address)
    log.info("links.revoked", user=user.id, job_id=str(job_id), addresses=len(addresses))
    return Revoked(addresses=addresses)
