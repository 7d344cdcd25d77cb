"""Bearer tokens for those who hold the secret that signs them: a convenience for development."""

import time
from collections.abc import Sequence

from producers.errors import UsageError
from stream_app.settings import Settings


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
    from joserfc import jwt
    from joserfc.jwk import OctKey

    now = int(time.time())
    claims: dict[str, object] = {"sub": user_id, "iat": now, "exp": now + int(hours * 3600)}
    if roles:
        claims["roles"] = list(roles)
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    key = OctKey.import_key(settings.jwt_secret.get_secret_value())
    return jwt.encode({"alg": "HS256"}, claims, key, algorithms=["HS256"])
