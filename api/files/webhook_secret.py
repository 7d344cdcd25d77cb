"""The secret that a receiver of webhooks verifies them with."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api import audit_log
from api.auth.authenticator import CurrentUser
from api.errors import Problem, problem_responses
from api.services import InjectedServices
from stream_app.addresses import MAX_URL, receiver_url
from stream_app.notifications.webhook import receiver_key, secret_text
from streaming_exporter.errors import Rejected

router = APIRouter(prefix="/exports", tags=["deliveries"])


class WebhookSecret(BaseModel):
    """What one receiver verifies webhooks with: Standard Webhooks, ``whsec_`` and base64."""

    url: str
    secret: str
    previous_secret: str | None
    """The one before, while the operators change the secret that both are derived from."""


@router.get(
    "/webhook-secret",
    operation_id="getWebhookSecret",
    summary="The secret of one of your webhooks",
    response_model=WebhookSecret,
    responses=problem_responses(401, 422, 500, 503),
)
async def get_webhook_secret(
    services: InjectedServices,
    user: CurrentUser,
    url: Annotated[
        str, Query(max_length=MAX_URL, description="The webhook's URL; its query does not matter")
    ],
) -> WebhookSecret:
    """It holds for the webhooks of your own jobs and schedules to this URL, and for nothing else."""
    try:
        services.addressing.webhook(url, field="url")
    except Rejected as error:
        raise Problem(422, error.code, str(error)) from error
    secrets = [secret_text(receiver_key(key, user.id, url)) for key in services.settings.webhook_keys]
    audit_log.set_object("webhook", services.address_hash(receiver_url(url)), owner=user.id)
    return WebhookSecret(
        url=receiver_url(url), secret=secrets[0], previous_secret=secrets[1] if len(secrets) > 1 else None
    )
