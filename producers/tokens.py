"""Bearer tokens of the commands: the ``--token`` option, and tokens that are signed here for development."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_exporter.errors import UsageError

if TYPE_CHECKING:
    from stream_app.settings import Settings

STDIN = "-"
FILE = "@"
"""Prefix of a value that names a file."""


def _read(value: str | None) -> str | None:
    """Return the token that the value of the option ``--token`` stands for.

    Other users of this machine can see the option's value, but not the file or the standard input that it
    names.
    """
    if value is None or not (value == STDIN or value.startswith(FILE)):
        return value
    try:
        text = sys.stdin.read() if value == STDIN else Path(value.removeprefix(FILE)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{value} cannot be read: {error}") from error
    if not text.strip():
        raise typer.BadParameter(f"{value} is empty")
    return text.strip()


Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        callback=_read,
        metavar="@FILE",
        help="The bearer token: @FILE reads it from a file, `-` from standard input. The token itself also "
        "works, but other users of this machine can see it. Default: EXPORTER_TOKEN, or else a token that is "
        "signed with EXPORTER_JWT_SECRET",
    ),
]


def sign_token(
    settings: "Settings",
    user_id: str,
    roles: Sequence[str] = (),
    *,
    hours: float = 12,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Sign a token for ``user_id`` with ``EXPORTER_JWT_SECRET``; it is valid for ``hours``.

    ``claims`` are further claims, by name or path.

    Raises:
        UsageError: tokens come from an identity provider, or the secret is too weak.
    """
    from stream_app.unsafe_settings import weakness  # the settings are slow to import

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
    content: dict[str, object] = {}
    for name, value in (claims or {}).items():
        _put(content, name, value)
    content |= {"iat": now, "exp": now + int(hours * 3600)}
    _put(content, settings.jwt_user_claim, user_id)
    if roles:
        _put(content, settings.jwt_roles_claim, list(roles))
    meant = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
    content |= {claim: value for claim, value in meant.items() if value and value != "*"}
    key = OctKey.import_key(settings.jwt_secret.get_secret_value())
    return jwt.encode({"alg": "HS256"}, content, key, algorithms=["HS256"])


def _put(claims: dict[str, Any], path: str, value: object) -> None:
    """Write a claim where the API looks for it. A name that is a URL is not split at its dots."""
    *folders, name = [path] if "://" in path else path.split(".")
    for folder in folders:
        claims = claims.setdefault(folder, {})
    claims[name] = value


def subject_of(token: str) -> str | None:
    """Return whose token it is, without a check of its signature; ``None`` if it cannot be read."""
    import base64
    import json

    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["sub"]
    except (ValueError, LookupError, TypeError):  # the API refuses it
        return None
    return found if isinstance(found, str) else None
