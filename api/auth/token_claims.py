"""Claims of tokens: finds them by path, and refuses tokens that are not access tokens. Pure."""

from collections.abc import Mapping
from typing import Any

ACCESS_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Values of the header ``typ`` of access tokens (RFC 7519, RFC 9068), in lower case."""
LATEST = 253_402_300_799
"""The last second of the year 9999, the latest possible expiry."""


class BadClaims(ValueError):
    """The token is not an access token for this API."""


def at_path(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim at ``path``, or ``None``.

    A claim with exactly this name comes first, so names with dots, such as ``https://example.com/roles``,
    need no quotes. Otherwise each dot separates the name of an object from a name inside it
    (``realm_access.roles``, ``resource_access.my.client.roles``). The longest name that exists is used.
    """
    return _below(claims, path.split("."))


def _below(content: Any, parts: list[str]) -> Any:
    if not parts:
        return content
    if not isinstance(content, Mapping):
        return None
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        if name in content and (found := _below(content[name], parts[count:])) is not None:
            return found
    return None


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store the text: JSON can have NUL characters and half surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_kind(header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
    """Refuse tokens that are not access tokens.

    An identity provider signs other tokens with the same keys: ID tokens (OpenID Connect), logout tokens
    (Back-Channel Logout), refresh tokens (Keycloak). APIs must not accept them.

    Raises:
        BadClaims: the token is one of those.
    """
    kind = header.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in ACCESS_TYPES):
        raise BadClaims("typ of the header")
    typ_claim = claims.get("typ")  # Keycloak: Bearer, ID, Refresh, Offline, Logout
    if typ_claim is not None and typ_claim != "Bearer":
        raise BadClaims("typ")
    if claims.get("token_use", "access") != "access":  # Cognito
        raise BadClaims("token_use")
    if any(name in claims for name in ("at_hash", "c_hash", "s_hash", "events")):
        raise BadClaims("claims of an ID token or a logout token")
    is_access = typ_claim == "Bearer" or (isinstance(kind, str) and "at+jwt" in kind.lower())
    if "nonce" in claims and not is_access:
        raise BadClaims("nonce")


def expiry(value: object) -> float:
    """Return ``exp`` in seconds since 1970.

    Raises:
        BadClaims: the value is not a time.
    """
    return _moment(value, "exp")


def check_lifetime(claims: Mapping[str, Any], now: float, limit: float | None, leeway: float) -> None:
    """Refuse a token with a lifetime above ``limit`` seconds, counted from ``iat`` or from ``now``.

    Raises:
        BadClaims: the lifetime is too long.
    """
    if limit is None:
        return
    begins = [now]
    if "iat" in claims:
        begins.append(_moment(claims["iat"], "iat"))
    if expiry(claims["exp"]) - min(begins) > limit + leeway:
        raise BadClaims("valid for too long")


def _moment(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise BadClaims(name)
    return float(value)
