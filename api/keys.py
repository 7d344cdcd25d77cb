"""The keys that bearer tokens are checked with: one shared secret, or a provider's published set."""

import asyncio
import time
from typing import Any, Protocol

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey

from stream_app.errors import Retryable

log = structlog.get_logger(__name__)

FRESH_SECONDS = 300.0
"""How long a published set is used before it is asked for again."""
PAUSE_SECONDS = 10.0
"""Time between two fetches, however many tokens name keys that nobody knows."""

ALGORITHMS: dict[type[Key], frozenset[str]] = {
    RSAKey: frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ECKey: frozenset({"ES256", "ES384", "ES512"}),
    OKPKey: frozenset({"EdDSA", "Ed25519"}),
}
"""What each type of published key may sign with. There is no HMAC: everybody knows a public key."""


class UnknownKey(Exception):
    """No key here fits the token's header."""


class Keys(Protocol):
    """Finds the key that a token's header asks for."""

    async def find(self, header: dict[str, Any]) -> Key:
        """The key, whose use of the header's ``alg`` is allowed.

        Raises:
            UnknownKey: there is none.
            Retryable: the provider cannot be reached.
        """


class SharedSecret:
    """HS256 with one secret, and nothing else."""

    def __init__(self, secret: str) -> None:
        self._key = OctKey.import_key(secret)

    async def find(self, header: dict[str, Any]) -> Key:
        """The secret, for HS256."""
        if header.get("alg") != "HS256":
            raise UnknownKey
        return self._key


class PublishedKeys:
    """The set at a JWKS URL: kept for a while, fetched anew when a token names a key that is not in it.

    While the provider is away, the keys that are known go on being used.
    """

    def __init__(
        self, url: str, http: httpx.AsyncClient, *, fresh: float = FRESH_SECONDS, pause: float = PAUSE_SECONDS
    ) -> None:
        self._url = url
        self._http = http
        self._fresh = fresh
        self._pause = pause
        self._keys: list[Key] = []
        self._fetched = self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, header: dict[str, Any]) -> Key:
        """The published key of that id, if it may sign that way."""
        if time.monotonic() - self._fetched > self._fresh:
            await self._refresh()
        found = self._match(header)
        if found is None:
            await self._refresh()
            found = self._match(header)
        if found is None:
            raise UnknownKey
        return found

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

    async def _refresh(self) -> None:
        asked = time.monotonic()
        async with self._fetching:
            if self._tried >= asked or time.monotonic() - self._tried < self._pause:
                return  # somebody else has just done so
            self._tried = time.monotonic()
            try:
                response = await self._http.get(self._url)
                response.raise_for_status()
                self._keys = _public_keys(response.json())
                self._fetched = time.monotonic()
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                log.warning("jwks.unavailable", url=self._url, error=repr(error))
                if not self._keys:
                    self._tried = float("-inf")
                    raise Retryable(f"identity provider: {error!r}") from error


def _public_keys(document: dict[str, Any]) -> list[Key]:
    """Those of a known type; RFC 7517, section 5, wants the others ignored."""
    keys: list[Key] = []
    for item in document["keys"]:
        try:
            key = JWKRegistry.import_key(item)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            log.warning("jwks.unusable_key", kid=item.get("kid"), error=repr(error))
            continue
        if type(key) in ALGORITHMS:
            keys.append(key)
    return keys
