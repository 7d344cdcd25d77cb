"""Deliveries of a job (mails, chat messages, webhooks, destinations), links, and the secret of webhooks."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query
from pydantic import BaseModel

from api import audit_log
from api.auth.authenticator import CurrentUser
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_responses
from api.jobs.routes import find_job_with_data
from api.services import InjectedServices
from stream_app.addresses import MAX_URL, receiver_url
from stream_app.chat_addresses import shown_address
from stream_app.notifications.models import Channel, DeliveryStatus
from stream_app.notifications.webhook import receiver_key, secret_text
from streaming_exporter.errors import Rejected

router = APIRouter(prefix="/exports", tags=["deliveries"], route_class=DocumentedRoute)
log = structlog.get_logger(__name__)


class DeliveryView(BaseModel):
    """One mail, chat message or webhook call to one recipient, or the files to one destination.

    The URL of a chat is shortened. ``address`` of a destination is its name.

    ``ambiguous``: the service does not know whether it arrived. ``reason`` explains why it was not sent.
    ``files_sent`` and ``bytes_sent`` tell how far a delivery to a destination is, and ``path`` is where its
    first file is stored, with the prefix of the destination; for others they are null.
    """

    channel: Channel
    address: str
    event: str
    status: DeliveryStatus
    attempts: int
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    revoked: bool
    files_sent: int | None = None
    bytes_sent: int | None = None
    path: str | None = None


class Deliveries(BaseModel):
    """All deliveries of a job, also those that are still to be sent."""

    deliveries: list[DeliveryView]


class Revoked(BaseModel):
    """The recipients whose links no longer work."""

    addresses: list[str]


class WebhookSecret(BaseModel):
    """The secret with which one receiver verifies webhooks, in the form of Standard Webhooks.

    ``previous_secret`` is the one before, while the operators change the key that both are derived from.
    """

    url: str
    secret: str
    previous_secret: str | None


@router.get(
    "/jobs/{job_id}/deliveries",
    operation_id="listDeliveries",
    response_model=Deliveries,
    responses=problem_responses(401, 404, 500, 503),
)
async def list_deliveries(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Deliveries:
    """The mails, chat messages, webhooks and destinations of a job, with their state.

    Deliveries appear here as soon as the job has ended.
    """
    await find_job_with_data(services, user, job_id)
    return Deliveries(
        deliveries=[
            DeliveryView(
                channel=row.channel,
                address=shown_address(row.address),
                event=row.event,
                status=row.status,
                attempts=row.attempts,
                reason=row.reason,
                created_at=row.created_at,
                finished_at=row.finished_at,
                revoked=row.revoked_at is not None,
                files_sent=(row.progress or {}).get("files"),
                bytes_sent=(row.progress or {}).get("bytes"),
                path=(row.progress or {}).get("path"),
            )
            for row in await services.outbox.deliveries_of(job_id)
        ]
    )


@router.delete(
    "/jobs/{job_id}/links",
    operation_id="revokeLinks",
    response_model=Revoked,
    responses=problem_responses(401, 404, 422, 500, 503),
)
async def revoke_links(
    job_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    address: Annotated[
        str | None,
        Query(
            max_length=2010,
            description="Revoke only the links of this recipient; a chat in full or as its delivery shows it",
        ),
    ] = None,
) -> Revoked:
    """Revoke the links in mails, chat messages and webhooks.

    The file stays, and its owner can still download it. A revoked link cannot be restored.

    While the job runs, its links are revoked before they exist: the recipients get no messages about it.
    An address that the job does not have is 404 with the code `unknown_recipient`.
    """
    await find_job_with_data(services, user, job_id)
    addresses = await services.outbox.revoke(job_id, address)
    if addresses is None:
        raise Problem(
            404,
            "unknown_recipient",
            "The job has no such recipient, so no link was revoked. Check the address",
        )
    log.info("links.revoked", user=user.id, job_id=str(job_id), addresses=len(addresses))
    return Revoked(addresses=addresses)


@router.get(
    "/webhook-secret",
    operation_id="getWebhookSecret",
    response_model=WebhookSecret,
    responses=problem_responses(401, 422, 500, 503),
)
async def get_webhook_secret(
    services: InjectedServices,
    user: CurrentUser,
    url: Annotated[
        str, Query(max_length=MAX_URL, description="The URL of the webhook; its query string is ignored")
    ],
) -> WebhookSecret:
    """The secret that verifies webhooks to one of your URLs.

    The secret is valid only for webhooks of your own jobs and schedules to this URL.
    """
    try:
        services.validator.addressing.webhook(url, field="url")
    except Rejected as error:
        raise Problem(422, error.code, str(error)) from error
    secrets = [secret_text(receiver_key(key, user.id, url)) for key in services.settings.webhook_keys]
    audit_log.set_object("webhook", services.address_hash(receiver_url(url)), owner=user.id)
    return WebhookSecret(
        url=receiver_url(url), secret=secrets[0], previous_secret=secrets[1] if len(secrets) > 1 else None
    )
