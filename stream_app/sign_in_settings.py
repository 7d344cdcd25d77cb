"""The settings of tokens and of the page's sign-in at an identity provider."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from stream_app.setting_types import Origins, is_local_url
from streaming_exporter.setting_types import AnyWebUrl, Count, Text
from streaming_exporter.url_text import hide_credentials

DEVELOPMENT_SECRET = "development-secret-never-use-it-in-production"  # noqa: S105 - it is public
"""Default of ``jwt_secret``. The API does not start with it on a public address."""


class SignInSettings(BaseModel):
    """How users prove who they are; the settings of the whole service inherit them.

    Raises:
        pydantic.ValidationError: a value is not allowed, or values do not fit each other.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    jwt_secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET),
        description="Secret that verifies tokens (HS256) if JWT_JWKS_URL is not set",
    )
    jwt_jwks_url: AnyWebUrl | None = Field(None, description="URL of the key set (JWKS) that verifies tokens")
    jwt_audience: Text | None = Field(
        None, description="Audience that tokens must have. Required with JWT_JWKS_URL, where `*` accepts all"
    )
    jwt_issuer: Text | None = Field(
        None, description="Issuer that tokens must have. Required with JWT_JWKS_URL, where `*` accepts all"
    )
    jwt_user_claim: Text = Field(
        "sub", min_length=1, description="Claim with the user's id: a name, or a path such as `user.id`"
    )
    jwt_roles_claim: Text = Field(
        "roles",
        min_length=1,
        description="Claim with the roles: a name, or a path such as `realm_access.roles`",
    )
    jwt_max_lifetime_seconds: Count | None = Field(
        None,
        description="Longest lifetime of a token. Tokens with a longer one are refused. Default: no limit",
    )
    token: SecretStr | None = Field(None, description="Bearer token that the command line sends to the API")

    oidc_client_id: Text | None = Field(
        None,
        description="Client id of the page at the identity provider. With it users sign in by OpenID Connect",
    )
    oidc_issuer: AnyWebUrl | None = Field(
        None,
        description="Issuer that the page signs in at, as its discovery document has it. Default: JWT_ISSUER",
    )
    oidc_scopes: Text = Field(
        "openid",
        description="Scopes that the page asks for, separated by blanks. With `offline_access` many "
        "providers renew the session",
    )
    oidc_audience: Text | None = Field(
        None,
        description="Audience that the page asks for, as Auth0 needs it. It is sent as `audience`, and a URL "
        "also as `resource` (RFC 8707)",
    )
    oidc_origins: Origins = Field(
        "",
        description="Further origins of the provider that the page calls, separated by commas. Default: only "
        "the origin of the issuer",
    )
    sign_in_hint: Text | None = Field(
        None, description="Text on the page that explains to users how they get a token"
    )
    sign_in_url: AnyWebUrl | None = Field(
        None, description="Page that the hint links to, such as the company's help about access tokens"
    )

    @model_validator(mode="after")
    def _check_sign_in(self) -> Self:
        """Refuse a sign-in of the page that cannot work, or that sends codes and tokens unencrypted."""
        if self.oidc_client_id is None:
            if self.oidc_issuer is not None:
                raise ValueError(
                    "EXPORTER_OIDC_CLIENT_ID: it is not set, but EXPORTER_OIDC_ISSUER is set; "
                    "allowed: set both, or neither"
                )
            return self
        issuer = self.sign_in_issuer
        if issuer is None:
            raise ValueError(
                "EXPORTER_OIDC_ISSUER: it is not set, and EXPORTER_JWT_ISSUER is not a URL, but "
                "EXPORTER_OIDC_CLIENT_ID is set; allowed: the issuer of the provider's discovery document"
            )
        if self.jwt_jwks_url is None:
            raise ValueError(
                "EXPORTER_JWT_JWKS_URL: it is not set, but EXPORTER_OIDC_CLIENT_ID is set; "
                "allowed: the key set of the same provider, which verifies the tokens that the page gets"
            )
        if urlsplit(issuer).query or urlsplit(issuer).fragment:
            raise ValueError(
                "EXPORTER_OIDC_ISSUER: it has a query or a fragment; allowed: the issuer of the provider's "
                "discovery document"
            )
        for variable, urls in (("OIDC_ISSUER", [issuer]), ("OIDC_ORIGINS", self.oidc_origins.split(","))):
            for url in filter(None, urls):
                if url == "*" or (urlsplit(url).scheme.lower() != "https" and not is_local_url(url)):
                    raise ValueError(
                        f"EXPORTER_{variable}: {hide_credentials(url)!r} does not begin with https://; "
                        "allowed: https:// (http:// only on this machine itself)"
                    )
        return self

    @property
    def sign_in_issuer(self) -> str | None:
        """Return the issuer that the page signs in at, or ``None`` if the page only takes pasted tokens."""
        if self.oidc_client_id is None:
            return None
        if self.oidc_issuer is not None:
            return self.oidc_issuer
        is_url = (self.jwt_issuer or "").lower().startswith(("https://", "http://"))
        return self.jwt_issuer if is_url else None
