"""Posts to URLs that users name, on public hosts only."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from stream_app.addresses import is_public, networks
from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused
from stream_app.notifications.host_lookups import HostLookups
from stream_app.notifications.request_words import one_line
from stream_app.settings import Settings

MAX_RETRY_AFTER = timedelta(hours=1)

NOT_PUBLIC = "the receiver is not a public host"
BAD_URL = "the URL of the receiver is not valid"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a receiver. ``body`` is its beginning, as far as the caller asked for it."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Return whether the receiver has accepted the call."""
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> timedelta:
        """How long the receiver asks to wait (RFC 9110, section 10.2.3), at most :data:`MAX_RETRY_AFTER`.

        The moment of a date is compared with the receiver's own clock.
        """
        given = self.headers.get("retry-after", "").strip()
        try:
            if given.isdecimal() and given.isascii():
                wait = timedelta(seconds=min(int(given), MAX_RETRY_AFTER.total_seconds()))
            else:
                moments = (parsedate_to_datetime(text) for text in (given, self.headers.get("date", "")))
                wait = next(moments) - next(moments)
        except (TypeError, ValueError, OverflowError):  # a date can have a zone of any size
            return timedelta(0)
        return min(max(wait, timedelta(0)), MAX_RETRY_AFTER)


@dataclass
class _Progress:
    """What is known of a call that has failed."""

    request_started: bool = False

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        """Note that the request is being sent; the client calls this for each of its steps."""
        if event.endswith(".send_request_headers.started"):
            self.request_started = True


class NoAnswer(DeliveryFailed):
    """The receiver has given no answer.

    ``request_started``: a part of the request was sent, so the receiver can have acted on it.
    """

    def __init__(self, reason: str, *, detail: str, request_started: bool) -> None:
        super().__init__(reason, host_unreachable=True, detail=detail)
        self.request_started = request_started


@dataclass(frozen=True, slots=True)
class PublicPost:
    """Posts to public hosts; see :data:`~stream_app.addresses.SPECIAL_NETWORKS` for what is not public."""

    settings: Settings
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    lookups: HostLookups = field(default_factory=HostLookups)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, user: str, read: int = 0
    ) -> Answer:
        """Post ``body`` and return the answer, with up to about ``read`` bytes of its body.

        ``user`` has named the URL.

        The call goes to a checked IP address, because the name can resolve to another one a moment later.
        Each call uses a new client, so receivers share no connection, cookie or proxy. Redirects are not
        followed.

        Raises:
            DeliveryRefused: the URL has no host that can be looked up.
            DeliveryFailed: too many hosts are being looked up, so this one was not called.
            NoAnswer: there is no answer, or all addresses of the host are private. The reason is then the
                same as for a name that does not exist, because the job's owner must learn nothing about the
                network of the service.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(self.settings.delivery_timeout_seconds):
                return await self._post(url, body, headers, user, read, progress)
        except httpx2.InvalidURL as error:
            raise _bad_url(error) from error
        except (httpx2.HTTPError, OSError) as error:
            detail = one_line(f"{type(error).__name__}: {error}", 300)
            raise NoAnswer(_reason(error), detail=detail, request_started=progress.request_started) from error

    async def _post(
        self, url: str, body: bytes, headers: Mapping[str, str], user: str, read: int, progress: _Progress
    ) -> Answer:
        target = httpx2.URL(url)
        last: httpx2.TransportError | None = None
        seconds = self.settings.delivery_timeout_seconds
        async with httpx2.AsyncClient(
            verify=self.tls,
            trust_env=False,
            follow_redirects=False,
            # The client closes a connection whose handshake takes too long, but not one that is cancelled.
            timeout=httpx2.Timeout(seconds, connect=seconds / 2),
        ) as client:
            for address in await self._addresses(url, user):
                request = client.build_request(
                    "POST",
                    target.copy_with(host=address),
                    content=body,
                    headers={**headers, "Host": target.netloc.decode("ascii")},
                    extensions={
                        "sni_hostname": target.raw_host.decode("ascii"),
                        "trace": progress.trace,
                    },
                )
                try:
                    response = await client.send(request, stream=True)
                except httpx2.ConnectError as error:
                    last = error
                    continue
                try:
                    return Answer(response.status_code, response.headers, await _beginning(response, read))
                finally:
                    await response.aclose()
        raise last or httpx2.ConnectError("the name has no address")

    async def _addresses(self, url: str, user: str) -> list[str]:
        """Return the IP addresses of the URL's host that can be called, IPv4 first."""
        parts = urlsplit(url)
        try:
            found = await self.lookups.find(parts.hostname, parts.port or 443, user=user)
        except UnicodeError as error:
            raise _bad_url(error) from error
        addresses = [str(item[4][0]) for item in sorted(found, key=lambda item: item[0] != socket.AF_INET)]
        if self.settings.webhook_allow_private:
            return addresses
        denied = networks(self.settings.webhook_denied_networks)
        public = [address for address in addresses if "%" not in address and is_public(address, denied)]
        if not public:
            detail = f"{parts.hostname} resolves to {addresses[0]}, which is not a public address"
            raise NoAnswer(NOT_PUBLIC, detail=detail, request_started=False)
        return public


async def _beginning(response: httpx2.Response, limit: int) -> bytes:
    """Return the first bytes of the body, which can be endless. Without them the status is still known."""
    found = b""
    if limit:
        try:
            async for chunk in response.aiter_raw():
                found += chunk[: limit - len(found)]
                if len(found) >= limit:
                    break
        except httpx2.HTTPError:
            return found
    return found


def _bad_url(error: Exception) -> DeliveryRefused:
    """Return the error of a URL that can never be called, such as one that an earlier version accepted."""
    return DeliveryRefused(BAD_URL, detail=one_line(f"{type(error).__name__}: {error}", 300))


def _reason(error: Exception) -> str:
    """Return the reason for the job's owner, without details of the service's network."""
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return "the receiver did not answer in time"
    if isinstance(error, socket.gaierror):
        return NOT_PUBLIC
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the receiver's certificate cannot be verified"
    return "the receiver could not be reached"
