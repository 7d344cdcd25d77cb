"""The keys that verify bearer tokens: one shared secret, or the key set of an identity provider."""

import asyncio
import json
import time
from typing import Any, Protocol

import httpx2
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey

from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

FRESH_SECONDS = 300.0
"""Age after which a key set is fetched again."""
STALE_SECONDS = 3600.0
"""Age after which a key set is not used any more, even if no newer one can be fetched."""
FETCH_SECONDS = 10.0
"""Time-out of fetching a key set."""
PAUSE_SECONDS = 10.0
"""Shortest time between two fetches, however many tokens name unknown keys."""

MAX_SET_BYTES = 1024 * 1024
"""Limit of the size of a key set."""
MIN_RSA_BITS = 2048
"""Shorter RSA keys are not secure (NIST SP 800-131A)."""

ALGORITHMS: dict[type[Key], frozenset[str]] = {
    RSAKey: frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ECKey: frozenset({"ES256", "ES384", "ES512"}),
    OKPKey: frozenset({"EdDSA", "Ed25519"}),
}
"""Algorithms that each type of key can sign with. HMAC is not allowed, because public keys are no secrets."""


class UnknownKey(Exception):
    """No key fits the token's header."""


class Keys(Protocol):
    """Finds the key that a token's header names."""

    async def find(self, header: dict[str, Any]) -> Key:
        """Return the key; it allows the header's ``alg``.

        Raises:
            UnknownKey: there is no such key.
            Retryable: the identity provider is unavailable.
        """


class SharedSecret:
    """One secret, which is valid only for HS256."""

    def __init__(self, secret: str) -> None:
        self._key = OctKey.import_key(secret)

    async def find(self, header: dict[str, Any]) -> Key:
        """Return the secret if the algorithm is HS256."""
        if header.get("alg") != "HS256":
            raise UnknownKey
        return self._key


class PublishedKeys:
    """The key set at a JWKS URL. It is cached, and fetched again when a token names an unknown key.

    While the provider is slow or unavailable, the known keys are used for a limited time.
    """

    def __init__(
        self,
        url: str,
        http: httpx2.AsyncClient,
        *,
        fresh: float = FRESH_SECONDS,
        stale: float = STALE_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._url = url
        self._http = http
        self._fresh = fresh
        self._stale = stale
        self._pause = pause
        self._keys: list[Key] = []
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._failure = ""

    async def find(self, header: dict[str, Any]) -> Key:
        """Return the key with the id in the header, if it allows the header's algorithm."""
        found = self._match(header) if self._usable else None
        if found is None:
            await self._refreshed()
            found = self._match(header)
        elif time.monotonic() - self._fetched > self._fresh:
            self._refresh()
        if found is None:
            raise UnknownKey
        return found

    @property
    def _usable(self) -> bool:
        return time.monotonic() - self._fetched <= self._stale

    def _match(self, header: dict[str, Any]) -> Key | None:
        algorithm, kid = header.get("alg"), header.get("kid")
        fitting = [
            key
            for key in self._keys
            if algorithm in ALGORITHMS[type(key)]
            and key.get("alg") in (None, algorithm)
            and key.get("use") in (None, "sig")
        ]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.get("kid") == kid), None)

    async def _refreshed(self) -> None:
        if (fetching := self._refresh()) is not None:
            await asyncio.shield(
                fetching
            )  # others wait for it too, so a cancelled request must not cancel it
        if not self._usable:
            raise Retryable(f"identity provider: {self._failure}")

    def _refresh(self) -> asyncio.Task[None] | None:
        """Return the running or a new fetch, which all callers share; ``None`` shortly after a failed one."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried < self._pause:
                return None
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = _public_keys(json.loads(await self._download()))
            if not keys:  # an empty set never replaces the known keys
                raise ValueError("the set has no key that can be used")
            self._keys = keys
            self._fetched = time.monotonic()
        except (
            httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, RecursionError,
            ValueError, KeyError, TypeError, AttributeError,
        ) as error:  # fmt: skip
            log.warning("jwks.fetch_failed", url=self._url, error=repr(error))
            self._failure = repr(error)
            if not self._usable:
                self._tried = float("-inf")  # without keys all tokens fail, so the next request tries again

    async def _download(self) -> bytes:
        """Download the key set, up to :data:`MAX_SET_BYTES`."""
        content = b""
        async with self._http.stream("GET", self._url) as response:
            response.raise_for_status()
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_SET_BYTES:
                    raise ValueError(f"the set has more than {MAX_SET_BYTES} bytes")
        return content


def _public_keys(document: dict[str, Any]) -> list[Key]:
    """Return the keys of known types. RFC 7517, section 5, requires to ignore the others."""
    keys: list[Key] = []
    for item in document["keys"]:
        try:
            key = JWKRegistry.import_key(item)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            kid = item.get("kid") if isinstance(item, dict) else None
            log.warning("jwks.key_rejected", kid=kid, error=repr(error))
            continue
        if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
            log.warning("jwks.key_rejected", kid=key.kid, error=f"RSA of less than {MIN_RSA_BITS} bits")
        elif type(key) in ALGORITHMS:
            keys.append(key)
    return keys
