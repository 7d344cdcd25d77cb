"""Bearer tokens for those who hold the secret that signs them: a convenience for development."""

import time
from collections.abc import Sequence
from typing import Any

from stream_app.exposure import weakness
from stream_app.settings import Settings
from streaming_exporter.errors import UsageError


def mint(settings: Settings, user_id: str, roles: Sequence[str] = (), *, hours: float = 12) -> str:
    """A token for ``user_id``, signed with ``EXPORTER_JWT_SECRET``.

    Raises:
        UsageError: tokens come from an identity provider, so nobody here can sign one.
    """
    if settings.jwt_jwks_url is not None:
        raise UsageError(
            "EXPORTER_JWT_JWKS_URL is set, so tokens come from that identity provider: "
            "get one there and pass it as --token or EXPORTER_TOKEN"
        )
    if why := weakness(settings.jwt_secret, public=False):
        raise UsageError(f"EXPORTER_JWT_SECRET: {why}; set it to at least 32 random characters")
    from joserfc import jwt
    from joserfc.jwk import OctKey

    now = int(time.time())
    claims: dict[str, object] = {"iat": now, "exp": now + int(hours * 3600)}
    _put(claims, settings.jwt_user_claim, user_id)
    if roles:
        _put(claims, settings.jwt_roles_claim, list(roles))
    meant = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
    claims |= {claim: value for claim, value in meant.items() if value and value != "*"}
    key = OctKey.import_key(settings.jwt_secret.get_secret_value())
    return jwt.encode({"alg": "HS256"}, claims, key, algorithms=["HS256"])


def _put(claims: dict[str, Any], path: str, value: object) -> None:
    """Write a claim where the API looks for it: a name that is an address stays whole."""
    *folders, name = [path] if "://" in path else path.split(".")
    for folder in folders:
        claims = claims.setdefault(folder, {})
    claims[name] = value
