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

from api.keys import Keys, UnknownKey
from api.problems import Problem
from stream_app.settings import Settings

ALL_ROWS = "exports:all"
"""May ask for rows of every user."""
ADMIN = "exports:admin"
"""May see and cancel every job, and whatever :data:`ALL_ROWS` may."""

SKEW_SECONDS = 10
"""How far ahead the clock of whoever issued a token may be."""
LONGEST_TOKEN = 8192
REMEMBERED = 4096
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
    def may_export_all(self) -> bool:
        """Whether scope ``all`` is open to them."""
        return not self.roles.isdisjoint({ALL_ROWS, ADMIN})

    @property
    def sees(self) -> str | None:
        """The user whose jobs they see; ``None``: everybody's."""
        return None if self.is_admin else self.id


class Authenticator:
    """Checks tokens: signature with a pinned algorithm, expiry, and audience and issuer where configured."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._keys = keys
        required: dict[str, Any] = {"exp": {"essential": True}, "sub": {"essential": True}}
        if settings.jwt_audience:
            required["aud"] = {"essential": True, "value": settings.jwt_audience}
        if settings.jwt_issuer:
            required["iss"] = {"essential": True, "value": settings.jwt_issuer}
        self._claims = jwt.JWTClaimsRegistry(leeway=SKEW_SECONDS, **required)
        self._verified: dict[str, tuple[dict[str, Any], Key, User]] = {}

    async def user(self, token: str) -> User:
        """The bearer of ``token``.

        Raises:
            Problem: 401, without a word on which check failed beyond expiry.
            Retryable: the identity provider's keys cannot be fetched.
        """
        if len(token) > LONGEST_TOKEN:
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
        self._claims.validate(claims)
        user = User(_subject(claims["sub"]), _roles(claims.get("roles")), claims["exp"])
        if len(self._verified) >= REMEMBERED:
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
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("Send a bearer token: Authorization: Bearer …", error=None)
        authenticator: Authenticator = request.app.state.services.authenticator
        return await authenticator.user(token.strip())


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
