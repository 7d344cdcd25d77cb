"""Sends webhooks to public hosts, signed as Standard Webhooks (https://www.standardwebhooks.com) require."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from stream_app.addresses import is_public, networks, receiver_url
from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.notification import Notification
from stream_app.notifications.request_words import one_line
from stream_app.observability import tracing
from stream_app.settings import Settings

NOT_PUBLIC = "the receiver is not a public host"

GONE = 410
"""The status by which a receiver states that it wants no more webhooks."""


class WebhookClient:
    """Posts the final status of jobs. If the response is not 2xx, the call is retried with the same id."""

    def __init__(self, settings: Settings, links: DeliveryLinks) -> None:
        self._settings = settings
        self._links = links
        self._denied = networks(settings.webhook_denied_networks)
        self._tls = ssl.create_default_context()

    async def send(self, notification: Notification) -> None:
        """See :class:`~stream_app.notifications.channel.DeliveryClient`."""
        body = json.dumps(self.payload(notification), separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "streaming-exporter",
            **signature_headers(self._keys(notification), message_id(notification), int(time.time()), body),
            **({"traceparent": context} if (context := tracing.current_span().traceparent) else {}),
        }
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_seconds):
                status = await self._post(notification.address, body, headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            detail = one_line(f"{type(error).__name__}: {error}", 300)
            raise DeliveryFailed(_reason(error), host_unreachable=True, detail=detail) from error
        if status == GONE:
            raise DeliveryRefused("the receiver answered 410, so it wants no more webhooks")
        if not 200 <= status < 300:
            raise DeliveryFailed(f"the receiver answered {status}")

    def _keys(self, notification: Notification) -> list[bytes]:
        """Return the keys that sign: the receiver's own, and the shared ones if the settings allow them."""
        masters = self._settings.webhook_keys
        own = [receiver_key(master, notification.user_id, notification.address) for master in masters]
        return own + (masters if self._settings.webhook_shared_signature else [])

    async def close_idle(self) -> None:
        """See :class:`~stream_app.notifications.channel.DeliveryClient`."""

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

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Post to a checked IP address, because the name can resolve to another one a moment later.

        Each call uses a new client, so receivers share no connection, cookie or proxy.
        """
        target = httpx2.URL(url)
        last: httpx2.TransportError | None = None
        async with httpx2.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=self._settings.delivery_timeout_seconds,
        ) as client:
            for address in await self._addresses(url):
                request = client.build_request(
                    "POST",
                    target.copy_with(host=address),
                    content=body,
                    headers={**headers, "Host": target.netloc.decode("ascii")},
                    extensions={"sni_hostname": target.raw_host.decode("ascii")},
                )
                try:
                    # The body of the response is not read: it is not needed and can be endless.
                    response = await client.send(request, stream=True)
                except httpx2.ConnectError as error:
                    last = error
                    continue
                await response.aclose()
                return response.status_code
        raise last or httpx2.ConnectError("the name has no address")

    async def _addresses(self, url: str) -> list[str]:
        """Return the IP addresses of the URL's host that can be called, IPv4 first.

        Raises:
            DeliveryFailed: all its addresses are private. The reason is the same as for a name that does not
                exist, because the job's owner must learn nothing about the network of the service.
        """
        parts = urlsplit(url)
        found = await asyncio.get_running_loop().getaddrinfo(
            parts.hostname, parts.port or 443, type=socket.SOCK_STREAM
        )
        addresses = [str(item[4][0]) for item in sorted(found, key=lambda item: item[0] != socket.AF_INET)]
        if self._settings.webhook_allow_private:
            return addresses
        public = [address for address in addresses if "%" not in address and is_public(address, self._denied)]
        if not public:
            detail = f"{parts.hostname} resolves to {addresses[0]}, which is not a public address"
            raise DeliveryFailed(NOT_PUBLIC, host_unreachable=True, detail=detail)
        return public


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


def _reason(error: Exception) -> str:
    """Return the reason for the job's owner, without details of the service's network."""
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return "the receiver did not answer in time"
    if isinstance(error, socket.gaierror):
        return NOT_PUBLIC
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the receiver's certificate cannot be verified"
    return "the receiver could not be reached"


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
