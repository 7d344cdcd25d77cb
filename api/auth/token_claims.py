"""What tokens say: claims found by path, and tokens that are not for calling an API. Pure."""

from collections.abc import Mapping
from typing import Any

ACCESS_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Values of the header ``typ`` that tokens for an API have (RFC 7519, RFC 9068), in lower case."""
LATEST = 253_402_300_799
"""The last second of the year 9999: nothing expires later."""


class BadClaims(ValueError):
    """The token is not one for calling this API."""


def at_path(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at ``path``; ``None``: there is none.

    A claim of exactly that name comes first, so that names with dots in them, such as
    ``https://example.com/roles``, need no quoting. Otherwise each dot leads into an object
    (``realm_access.roles``, ``resource_access.my.client.roles``): the longest name that fits is taken.
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


def check_kind(header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
    """Let only access tokens through.

    An identity provider signs others with the same keys: ID tokens (OpenID Connect), logout tokens
    (Back-Channel Logout), refresh tokens (Keycloak). None of them is meant for an API.

    Raises:
        BadClaims: it is one of those.
    """
    kind = header.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in ACCESS_TYPES):
        raise BadClaims("typ of the header")
    said = claims.get("typ")  # Keycloak: Bearer, ID, Refresh, Offline, Logout
    if said is not None and said != "Bearer":
        raise BadClaims("typ")
    if claims.get("token_use", "access") != "access":  # Cognito
        raise BadClaims("token_use")
    if any(name in claims for name in ("at_hash", "c_hash", "s_hash", "events")):
        raise BadClaims("claims of an ID token or a logout token")
    is_access = said == "Bearer" or (isinstance(kind, str) and "at+jwt" in kind.lower())
    if "nonce" in claims and not is_access:
        raise BadClaims("nonce")


def expiry(value: object) -> float:
    """``exp`` in seconds since 1970.

    Raises:
        BadClaims: it is no moment.
    """
    return _moment(value, "exp")


def check_lifetime(claims: Mapping[str, Any], now: float, longest: float | None, leeway: float) -> None:
    """Refuse a token that is valid for longer than ``longest`` seconds.

    Raises:
        BadClaims: it is, by ``iat`` or from ``now``.
    """
    if longest is None:
        return
    begins = [now]
    if "iat" in claims:
        begins.append(_moment(claims["iat"], "iat"))
    if expiry(claims["exp"]) - min(begins) > longest + leeway:
        raise BadClaims("valid for too long")


def _moment(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise BadClaims(name)
    return float(value)
