"""Webhooks, signed as Standard Webhooks (https://www.standardwebhooks.com) say, to public hosts only."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from stream_app import tracing
from stream_app.delivery.addresses import is_public
from stream_app.delivery.content import one_line
from stream_app.delivery.links import Links
from stream_app.delivery.notice import Notice
from stream_app.delivery.transport import Refused, Undelivered
from stream_app.settings import Settings

GONE = 410
"""The receiver wants no more of them."""


class Hooks:
    """Posts how jobs ended. Whatever is not answered with 2xx is sent again later, under the same id."""

    def __init__(self, settings: Settings, key: bytes, links: Links) -> None:
        self._settings = settings
        self._key = key
        self._links = links
        self._tls = ssl.create_default_context()

    async def send(self, notice: Notice) -> None:
        """See :class:`~stream_app.delivery.transport.Transport`."""
        body = json.dumps(self.payload(notice), separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "streaming-exporter",
            **signed(self._key, message_id(notice), int(time.time()), body),
            **({"traceparent": context} if (context := tracing.current().traceparent) else {}),
        }
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_seconds):
                status = await self._post(notice.address, body, headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Undelivered(one_line(f"{type(error).__name__}: {error}", 300)) from error
        if status == GONE:
            raise Refused("the receiver answered 410: it wants no more of them")
        if not 200 <= status < 300:
            raise Undelivered(f"the receiver answered {status}")

    async def rest(self) -> None:
        """See :class:`~stream_app.delivery.transport.Transport`."""

    def payload(self, notice: Notice) -> dict[str, Any]:
        """What is posted."""
        data: dict[str, Any] = {
            "job_id": str(notice.job_id),
            "user_id": notice.user_id,
            "export_type": notice.export_type,
            "format": notice.format,
            "status": notice.event,
            "completed_at": _iso(notice.completed_at),
        }
        if notice.failed:
            data["error"] = {"code": notice.error_code, "message": notice.error_message}
        else:
            data |= {
                "row_count": notice.row_count,
                "file_size": notice.file_size,
                "sha256": notice.sha256,
                "file_name": notice.file_name,
                "content_type": notice.content_type,
                "as_of": _iso(notice.as_of),
                "expires_at": _iso(notice.expires_at),
                "download_url": self._links.download(notice.delivery_id),
            }
        return {
            "type": f"export.{notice.event}",
            "timestamp": _iso(notice.completed_at or notice.due_at),
            "data": data,
        }

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Post to the address that was checked, not to one that the name may have by then.

        A client of its own for each call: no connection, cookie or proxy is shared between receivers.
        """
        target = httpx.URL(url)
        last: httpx.TransportError | None = None
        async with httpx.AsyncClient(
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
                    # The answer's body is of no interest, and may be endless.
                    response = await client.send(request, stream=True)
                except httpx.ConnectError as error:
                    last = error
                    continue
                await response.aclose()
                return response.status_code
        raise last or httpx.ConnectError("the name has no address")

    async def _addresses(self, url: str) -> list[str]:
        """IP addresses of the URL's host that may be called, IPv4 first.

        Raises:
            Refused: it has none but private ones.
        """
        parts = urlsplit(url)
        found = await asyncio.get_running_loop().getaddrinfo(
            parts.hostname, parts.port or 443, type=socket.SOCK_STREAM
        )
        addresses = [str(item[4][0]) for item in sorted(found, key=lambda item: item[0] != socket.AF_INET)]
        if self._settings.webhook_allow_private:
            return addresses
        public = [address for address in addresses if "%" not in address and is_public(address)]
        if not public:
            raise Refused(f"{parts.hostname} leads to {addresses[0]}, which is not a public address")
        return public


def message_id(notice: Notice) -> str:
    """The same for every attempt, so that receivers can drop repetitions."""
    return f"msg_{notice.delivery_id.hex}"


def signed(key: bytes, identity: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers; ``timestamp`` is Unix time in seconds."""
    content = b".".join((identity.encode(), str(timestamp).encode(), body))
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
