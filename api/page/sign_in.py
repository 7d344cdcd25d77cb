"""How users sign in on the page: the settings that the page reads, and the origins that it can call."""

from urllib.parse import urlsplit

from pydantic import BaseModel

from stream_app.settings import Settings
from stream_app.unsafe_settings import is_public


class OpenIdConnect(BaseModel):
    """The identity provider, and how the page identifies itself there. There is no secret."""

    issuer: str
    client_id: str
    scope: str
    audience: str | None
    origins: list[str]
    """Origins that the Content-Security-Policy allows the page to call."""


class SignIn(BaseModel):
    """How users sign in: with the provider if there is one, or with a pasted token."""

    oidc: OpenIdConnect | None
    hint: str | None
    """Text of the operators that explains how users get a token."""
    url: str | None
    """Page that the hint links to."""
    local: bool
    """Whether the service runs on this machine alone, where the command line makes tokens."""


def sign_in_of(settings: Settings, host: str | None) -> SignIn:
    """Return how users sign in at an API that listens on ``host``."""
    return SignIn(
        oidc=_provider(settings),
        hint=settings.sign_in_hint,
        url=settings.sign_in_url,
        local=settings.jwt_jwks_url is None and not is_public(settings, host),
    )


def _provider(settings: Settings) -> OpenIdConnect | None:
    issuer = settings.sign_in_issuer
    if settings.oidc_client_id is None or issuer is None:
        return None
    scopes = dict.fromkeys(["openid", *settings.oidc_scopes.split()])  # without it there is no ID token
    origins = dict.fromkeys([_origin(issuer), *filter(None, settings.oidc_origins.split(","))])
    return OpenIdConnect(
        issuer=issuer,
        client_id=settings.oidc_client_id,
        scope=" ".join(scopes),
        audience=settings.oidc_audience,
        origins=list(origins),
    )


def _origin(url: str) -> str:
    """Return the origin of a URL as browsers write it, in lower case and without the port of the scheme."""
    parts = urlsplit(url.lower())
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    return f"{parts.scheme}://{parts.netloc.removesuffix(default)}"
