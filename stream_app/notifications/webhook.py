"""Sends webhooks to public hosts, signed as Standard Webhooks (https://www.standardwebhooks.com) require."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from stream_app.addresses import receiver_url
from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.notification import Notification
from stream_app.notifications.public_post import PublicPost
from stream_app.observability import tracing
from stream_app.settings import Settings

GONE = 410
"""The status by which a receiver states that it wants no more webhooks."""


class WebhookClient:
    """Posts the final status of jobs. If the response is not 2xx, the call is retried with the same id."""

    def __init__(self, settings: Settings, links: DeliveryLinks) -> None:
        self._settings = settings
        self._links = links
        self._post = PublicPost(settings)

    async def send(self, notification: Notification) -> None:
        """Call one webhook. The errors are those of :meth:`.DeliveryClient.send`."""
        body = json.dumps(self.payload(notification), separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "streaming-exporter",
            **signature_headers(self._keys(notification), message_id(notification), int(time.time()), body),
            **({"traceparent": context} if (context := tracing.current_span().traceparent) else {}),
        }
        answer = await self._post.post(notification.address, body, headers, user=notification.user_id)
        if answer.status == GONE:
            raise DeliveryRefused("the receiver answered 410, so it wants no more webhooks")
        if not answer.ok:
            raise DeliveryFailed(f"the receiver answered {answer.status}", retry_after=answer.retry_after)

    def _keys(self, notification: Notification) -> list[bytes]:
        """Return the keys that sign: the receiver's own, and the shared ones if the settings allow them."""
        masters = self._settings.webhook_keys
        own = [receiver_key(master, notification.user_id, notification.address) for master in masters]
        return own + (masters if self._settings.webhook_shared_signature else [])

    async def close_idle(self) -> None:
        """Close the idle connections."""

    def payload(self, notification: Notification) -> dict[str, Any]:
        """Return the body of the call."""
        data: dict[str, Any] = {
            "job_id": str(notification.job_id),
            "user_id": notification.user_id,
            "export_type": notification.export_type,
            "format": notification.format,
            "name": notification.name,
            "status": notification.event,
            "completed_at": _iso(notification.completed_at),
        }
        if notification.failed:
            data["error"] = {"code": notification.error_code, "message": notification.error_message}
        else:
            data |= {
                "row_count": notification.row_count,
                "file_size": notification.file_size,
                "sha256": notification.sha256,
                "file_name": notification.file_name,
                "content_type": notification.content_type,
                "as_of": _iso(notification.as_of),
                "expires_at": _iso(notification.expires_at),
                "download_url": self._links.download(notification.delivery_id),
            }
            if notification.has_several_files:
                data |= {
                    "download_url": None,
                    "file_count": notification.file_count,
                    "files_url": self._links.download(notification.delivery_id) + "/files",
                }
        return {
            "type": f"export.{notification.event}",
            "timestamp": _iso(notification.completed_at or notification.due_at),
            "data": data,
        }


def receiver_key(master: bytes, user_id: str, url: str) -> bytes:
    """Derive the key of one receiver from the key of the service.

    A receiver that knows its key can neither sign for another receiver nor calculate the key of the service.
    The user's id is part of the derivation, so a user who names another user's URL gets a different key.
    """
    context = b"\0".join((b"exporter.webhook.receiver", user_id.encode(), receiver_url(url).encode()))
    return hmac.new(master, context, hashlib.sha256).digest()


def secret_text(key: bytes) -> str:
    """Return a key in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(key).decode()}"


def message_id(notification: Notification) -> str:
    """Return the id of the webhook: the same for every attempt, so that receivers can drop repetitions."""
    return f"msg_{notification.delivery_id.hex}"


def signature_headers(keys: Sequence[bytes], identity: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the signature headers, one signature per key; ``timestamp`` is Unix time in seconds."""
    content = b".".join((identity.encode(), str(timestamp).encode(), body))
    signatures = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
