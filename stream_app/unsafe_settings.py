"""Refuses settings that are unsafe where other machines can reach the service. Pure.

A process does not start with these settings. ``exporter doctor`` reports them too.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import SecretStr

from stream_app.setting_types import is_local_url, is_loopback
from stream_app.settings import Settings
from stream_app.sign_in_settings import DEVELOPMENT_SECRET
from streaming_exporter.errors import ExporterError

ANY = "*"
"""Value of an audience or issuer that accepts all of them."""

SHORTEST_SECRET = 32
"""Fewest characters of a signing secret, which HS256 needs (RFC 7518, section 3.2)."""
FEWEST_CHARACTERS = 8
"""Fewest different characters of such a secret."""

KNOWN_SECRETS = frozenset(
    {
        DEVELOPMENT_SECRET,
        "change-me-to-at-least-32-random-characters",
        "change-me",
        "exporter",
        "exporter-secret",
    }
)
"""Secrets that are public, because documents or examples contain them."""


class UnsafeSettings(ExporterError):
    """Settings with which the service must not run."""

    code = "unsafe_settings"


def is_public(settings: Settings, host: str | None = None) -> bool:
    """Return whether other machines can reach the API, by its listening address or by PUBLIC_URL."""
    return not is_local_url(settings.public_url) or (host is not None and not is_loopback(host))


def weakness(secret: SecretStr | str, *, public: bool, shortest: int = SHORTEST_SECRET) -> str | None:
    """Return what is wrong with a signing secret, or ``None``.

    If only this machine reaches the service (it is not ``public``), only an empty secret is wrong.
    """
    value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if not value.strip():
        return "it is empty"
    if not public:
        return None
    if is_known(value):
        return "everybody knows it"
    if len(value.encode()) < shortest:
        return f"it is shorter than {shortest} characters"
    if len(set(value)) < FEWEST_CHARACTERS:
        return f"it has fewer than {FEWEST_CHARACTERS} different characters"
    return None


def is_known(secret: SecretStr | str) -> bool:
    """Return whether a document or an example contains this secret."""
    return (secret.get_secret_value() if isinstance(secret, SecretStr) else secret) in KNOWN_SECRETS


def weak_signing_secrets(
    settings: Settings, *, public: bool, reads_tokens: bool = True
) -> Iterator[tuple[str, str]]:
    """Return each variable with an unsafe signing secret, and the reason.

    Args:
        settings: the settings.
        public: whether other machines reach the service.
        reads_tokens: whether the process verifies tokens. A worker does not, but it signs links.
    """
    by_secret = reads_tokens and settings.jwt_jwks_url is None
    if by_secret and (why := weakness(settings.jwt_secret, public=public)):
        yield "EXPORTER_JWT_SECRET", why
    if settings.link_secret is not None:
        if why := weakness(settings.link_secret, public=public):
            yield "EXPORTER_LINK_SECRET", why
    elif not by_secret and (why := weakness(settings.jwt_secret, public=public)):
        yield "EXPORTER_LINK_SECRET", f"it is not set, and of EXPORTER_JWT_SECRET, which stands in: {why}"


def key_set_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """Return each variable with which the key set accepts tokens of others, and the reason."""
    if settings.jwt_jwks_url is None:
        return
    address = urlsplit(settings.jwt_jwks_url)
    if address.scheme.lower() != "https" and not (
        address.scheme.lower() == "http" and is_loopback(address.hostname or "")
    ):
        yield "EXPORTER_JWT_JWKS_URL", "must begin with https:// (http:// only for this machine itself)"
    for variable, value in (
        ("EXPORTER_JWT_AUDIENCE", settings.jwt_audience),
        ("EXPORTER_JWT_ISSUER", settings.jwt_issuer),
    ):
        if not value:
            yield (
                variable,
                "is needed with EXPORTER_JWT_JWKS_URL: the provider signs tokens of other applications "
                f"too; `{ANY}` takes every one",
            )


def refuse_open_key_set(settings: Settings) -> None:
    """Raise the first result of :func:`key_set_faults`.

    Raises:
        UnsafeSettings: the key set accepts tokens of others.
    """
    for variable, why in key_set_faults(settings):
        raise UnsafeSettings(f"{variable} {why}")


def refuse_weak_secrets(settings: Settings, host: str | None = None) -> None:
    """Check every signing secret of an API that listens on ``host``.

    Raises:
        UnsafeSettings: a secret is weak. The text names the first one.
    """
    for variable, why in weak_signing_secrets(settings, public=is_public(settings, host)):
        raise UnsafeSettings(
            f"{variable}: {why}. Set it to at least {SHORTEST_SECRET} random characters, "
            "for example with: openssl rand -hex 32"
        )
