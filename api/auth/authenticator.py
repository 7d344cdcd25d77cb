"""Authenticates users by bearer tokens (JWT), and defines what their roles allow."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key

from api.auth.signing_keys import Keys, UnknownKey
from api.auth.token_claims import BadClaims, at_path, check_kind, check_lifetime, expiry, is_storable
from api.errors import Problem
from stream_app.datasets.caller import ALL_DATA
from stream_app.settings import Settings
from stream_app.unsafe_settings import ANY, refuse_open_key_set

ALL_ROWS = "exports:all"
"""Role that can export the rows of all users."""
ADMIN = ALL_DATA
"""Role that can see and cancel every job, export every row, and see every dataset and column unmasked."""
OPERATE = "exports:operate"
"""Role that can see the status of every job and cancel it, without files, filters, addresses or rows."""

SKEW_SECONDS = 10
"""How far the clock of the issuer of a token can be ahead."""
MAX_TOKEN_LENGTH = 8192
MAX_CACHED_TOKENS = 4096
"""Limit of verified tokens in the cache. They are used until they expire or their key is removed."""


@dataclass(frozen=True, slots=True)
class User:
    """The user of a valid token."""

    id: str
    roles: frozenset[str]
    expires: float = field(default=inf, compare=False)
    """When the token expires, in seconds since 1970. An event stream ends then too."""
    token: str = field(default="", repr=False, compare=False)
    """The token itself, of which :attr:`claims` are read."""

    @property
    def claims(self) -> Mapping[str, Any]:
        """Return the claims of the token. They are read on demand: the cache then holds each token once."""
        if not self.token:
            return {}
        claims: dict[str, Any] = json.loads(jws.extract_compact(self.token.encode("ascii")).payload)
        return claims

    @property
    def is_admin(self) -> bool:
        """Return whether the user can see every job with its data."""
        return ADMIN in self.roles

    @property
    def is_operator(self) -> bool:
        """Return whether the user can see the status of every job, and cancel it."""
        return not self.roles.isdisjoint({OPERATE, ADMIN})

    @property
    def can_export_all(self) -> bool:
        """Return whether the user can export with scope ``all``."""
        return not self.roles.isdisjoint({ALL_ROWS, ADMIN})

    @property
    def data_owner(self) -> str | None:
        """Return the id of the user whose jobs they can see with data; ``None`` for all users."""
        return None if self.is_admin else self.id

    @property
    def status_owner(self) -> str | None:
        """Return the id of the user whose jobs' status they can see; ``None`` for all users."""
        return None if self.is_operator else self.id

    def can_see_data(self, owner: str) -> bool:
        """Return whether they can see the data of the jobs of ``owner``."""
        return self.is_admin or self.id == owner


class Authenticator:
    """Checks tokens: signature with a pinned algorithm, kind, expiry, audience, issuer."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        """Read the rules for tokens from the settings.

        Raises:
            UnsafeSettings: the settings accept the tokens of other applications of the identity provider.
        """
        refuse_open_key_set(settings)
        self._keys = keys
        self._user_claim = settings.jwt_user_claim
        self._roles_claim = settings.jwt_roles_claim
        self._max_lifetime = settings.jwt_max_lifetime_seconds
        required: dict[str, Any] = {"exp": {"essential": True}}
        for claim, value in (("aud", settings.jwt_audience), ("iss", settings.jwt_issuer)):
            if value and value != ANY:
                required[claim] = {"essential": True, "value": value}
        self._claims = jwt.JWTClaimsRegistry(leeway=SKEW_SECONDS, **required)
        self._verified: dict[str, tuple[dict[str, Any], Key, User]] = {}

    async def user(self, token: str) -> User:
        """Return the user of ``token``.

        Raises:
            Problem: 401. The text names no failed check except the expiry.
            Retryable: the keys of the identity provider cannot be fetched.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise _unauthorized("The token is not valid")
        try:
            user = await self._known(token) or await self._verify(token)
        except (
            JoseError,
            UnknownKey,
            ValueError,
            TypeError,
            KeyError,
            OverflowError,
            RecursionError,
        ) as error:
            if getattr(error, "error", None) == "expired_token":
                raise _unauthorized("The token has expired. Get a new one") from error
            raise _unauthorized("The token is not valid") from error
        if user.expires <= time.time():
            raise _unauthorized("The token has expired. Get a new one")
        return user

    async def bearer(self, header: str) -> User:
        """Return the user of the token in an ``Authorization`` header; raises the errors of :meth:`user`."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("Send a bearer token: Authorization: Bearer …", error=None)
        return await self.user(token.strip())

    async def _known(self, token: str) -> User | None:
        """Return the cached user of a verified token if its key is still valid."""
        if (seen := self._verified.get(token)) is None:
            return None
        header, key, user = seen
        return user if await self._keys.find(header) is key else None

    async def _verify(self, token: str) -> User:
        header = jws.extract_compact(token.encode("ascii")).headers()
        key = await self._keys.find(header)
        claims = jwt.decode(token, key, algorithms=[header["alg"]]).claims
        if not isinstance(claims, dict):
            raise BadClaims("no claims")
        check_kind(header, claims)
        expires = expiry(claims.get("exp"))
        self._claims.validate(claims)
        check_lifetime(claims, time.time(), self._max_lifetime, SKEW_SECONDS)
        user = User(
            _subject(at_path(claims, self._user_claim)),
            _roles(at_path(claims, self._roles_claim)),
            expires,
            token,
        )
        if len(self._verified) >= MAX_CACHED_TOKENS:
            self._verified.clear()
        self._verified[token] = (header, key, user)
        return user


USER_ERROR = "user_error"
"""Key of a request's state: why its token gives no user. The route raises it and does not check the token
again: with another result, the call would count for no user in the limits and in the audit log."""


class Bearer(SecurityBase):
    """The dependency that returns the user of the request's token, and describes the token for OpenAPI.

    It is one dependency and not a chain of them, because each costs as much as the check of a cached token.
    """

    def __init__(self) -> None:
        self.scheme_name = "bearer"
        self.model = HTTPBearerModel(
            bearerFormat="JWT", description="`exporter token` signs a token for development"
        )

    async def __call__(self, request: Request) -> User:
        """Return the user; raises the errors of :meth:`Authenticator.user`."""
        user: User | None = getattr(request.state, "user", None)
        error: Exception | None = getattr(request.state, USER_ERROR, None)
        if error is not None:
            raise error
        if user is None:
            authenticator: Authenticator = request.app.state.services.authenticator
            user = await authenticator.bearer(request.headers.get("Authorization", ""))
        return user


CurrentUser = Annotated[User, Depends(Bearer())]


def _unauthorized(detail: str, *, error: str | None = "invalid_token") -> Problem:
    challenge = "Bearer" + (f' error="{error}"' if error else "")
    return Problem(401, error or "missing_token", detail, headers={"WWW-Authenticate": challenge})


def _subject(value: object) -> str:
    """Return the user's id if it can be stored."""
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or not is_storable(value):
        raise _unauthorized("The token's subject cannot be used as a user id")
    return value


def _roles(value: object) -> frozenset[str]:
    """Return the roles from a list, or from a text with blanks between them, as OAuth writes scopes."""
    if isinstance(value, str):
        return frozenset(value.split())
    return (
        frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()
    )
