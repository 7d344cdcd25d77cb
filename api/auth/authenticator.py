"""Who asks: bearer tokens (JWT), and what their roles allow."""

import time
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
from api.auth.token_claims import BadClaims, at_path, check_kind, check_lifetime, expiry
from api.errors import Problem
from stream_app.exposure import ANY, refuse_open_key_set
from stream_app.settings import Settings

ALL_ROWS = "exports:all"
"""May ask for rows of every user."""
ADMIN = "exports:admin"
"""May see and cancel every job, and whatever :data:`ALL_ROWS` may."""
OPERATE = "exports:operate"
"""May see how every job stands and cancel it, without files, filters, addresses or rows."""

SKEW_SECONDS = 10
"""How far ahead the clock of whoever issued a token may be."""
MAX_TOKEN_LENGTH = 8192
MAX_CACHED_TOKENS = 4096
"""Verified tokens that are not verified again until they expire or their key goes."""


@dataclass(frozen=True, slots=True)
class User:
    """The bearer of a valid token."""

    id: str
    roles: frozenset[str]
    expires: float = field(default=inf, compare=False)
    """When the token does, in seconds since 1970: nothing that lasts may last longer."""

    @property
    def is_admin(self) -> bool:
        """Whether every job is theirs to see."""
        return ADMIN in self.roles

    @property
    def is_operator(self) -> bool:
        """Whether they may know how every job stands, and cancel it."""
        return not self.roles.isdisjoint({OPERATE, ADMIN})

    @property
    def can_export_all(self) -> bool:
        """Whether scope ``all`` is open to them."""
        return not self.roles.isdisjoint({ALL_ROWS, ADMIN})

    @property
    def data_owner(self) -> str | None:
        """The user whose jobs they see with all that is in them; ``None``: everybody's."""
        return None if self.is_admin else self.id

    @property
    def status_owner(self) -> str | None:
        """The user whose jobs they see at least the state of; ``None``: everybody's."""
        return None if self.is_operator else self.id

    def can_see_data(self, owner: str) -> bool:
        """Whether what is in the jobs of ``owner`` is theirs to see."""
        return self.is_admin or self.id == owner


class Authenticator:
    """Checks tokens: signature with a pinned algorithm, kind, expiry, audience, issuer."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        """
        Raises:
            UnsafeSettings: the identity provider signs for other applications too, and nothing says which
                tokens are meant for this one.
        """
        refuse_open_key_set(settings)
        self._keys = keys
        self._user_claim = settings.jwt_user_claim
        self._roles_claim = settings.jwt_roles_claim
        self._longest = settings.jwt_max_lifetime_seconds
        required: dict[str, Any] = {"exp": {"essential": True}}
        for claim, value in (("aud", settings.jwt_audience), ("iss", settings.jwt_issuer)):
            if value and value != ANY:
                required[claim] = {"essential": True, "value": value}
        self._claims = jwt.JWTClaimsRegistry(leeway=SKEW_SECONDS, **required)
        self._verified: dict[str, tuple[dict[str, Any], Key, User]] = {}

    async def user(self, token: str) -> User:
        """The bearer of ``token``.

        Raises:
            Problem: 401, without a word on which check failed beyond expiry.
            Retryable: the identity provider's keys cannot be fetched.
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
                raise _unauthorized("The token has expired; get a new one") from error
            raise _unauthorized("The token is not valid") from error
        if user.expires <= time.time():
            raise _unauthorized("The token has expired; get a new one")
        return user

    async def bearer(self, header: str) -> User:
        """The bearer of the token in an ``Authorization`` header; raises what :meth:`user` raises."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("Send a bearer token: Authorization: Bearer …", error=None)
        return await self.user(token.strip())

    async def _known(self, token: str) -> User | None:
        """The bearer, if the token was verified before and its key is still the one to use."""
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
        check_lifetime(claims, time.time(), self._longest, SKEW_SECONDS)
        user = User(
            _subject(at_path(claims, self._user_claim)), _roles(at_path(claims, self._roles_claim)), expires
        )
        if len(self._verified) >= MAX_CACHED_TOKENS:
            self._verified.clear()
        self._verified[token] = (header, key, user)
        return user


class Bearer(SecurityBase):
    """The dependency that yields the bearer of the request's token, and describes how to send one.

    One dependency rather than a chain of them: solving each costs as much as checking a known token.
    """

    def __init__(self) -> None:
        self.scheme_name = "bearer"
        self.model = HTTPBearerModel(bearerFormat="JWT", description="`exporter token` signs one")

    async def __call__(self, request: Request) -> User:
        """The user; raises what :meth:`Authenticator.user` raises."""
        user: User | None = getattr(request.state, "user", None)
        if user is None:
            authenticator: Authenticator = request.app.state.services.authenticator
            user = await authenticator.bearer(request.headers.get("Authorization", ""))
        return user


CurrentUser = Annotated[User, Depends(Bearer())]


def _unauthorized(detail: str, *, error: str | None = "invalid_token") -> Problem:
    challenge = "Bearer" + (f' error="{error}"' if error else "")
    return Problem(401, error or "missing_token", detail, headers={"WWW-Authenticate": challenge})


def _subject(value: object) -> str:
    """The user's id, as long as it can be stored."""
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or "\0" in value or not _is_encodable(value):
        raise _unauthorized("The token's subject cannot be used as a user id")
    return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _roles(value: object) -> frozenset[str]:
    """A list of names, or one text of them as OAuth scopes are written."""
    if isinstance(value, str):
        return frozenset(value.split())
    return (
        frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()
    )
