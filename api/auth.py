"""Who asks: bearer tokens (JWT), and what their roles allow."""

import time
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jws, jwt
from joserfc.errors import JoseError

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

    async def user(self, token: str) -> User:
        """The bearer of ``token``.

        Raises:
            Problem: 401, without a word on which check failed beyond expiry.
            Retryable: the identity provider's keys cannot be fetched.
        """
        if len(token) > LONGEST_TOKEN:
            raise _unauthorized("The token is not valid")
        try:
            header = jws.extract_compact(token.encode("ascii")).headers()
            key = await self._keys.find(header)
            claims = jwt.decode(token, key, algorithms=[header["alg"]]).claims
            self._claims.validate(claims)
            expired = claims["exp"] <= time.time()
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
        if expired:
            raise _unauthorized("The token has expired; get a new one")
        return User(_subject(claims["sub"]), _roles(claims.get("roles")), claims["exp"])


_bearer = HTTPBearer(
    auto_error=False, bearerFormat="JWT", scheme_name="bearer", description="`exporter token` signs one"
)


async def current_user(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> User:
    """The bearer of the request's token."""
    if credentials is None:
        raise _unauthorized("Send a bearer token: Authorization: Bearer …", error=None)
    authenticator: Authenticator = request.app.state.services.authenticator
    return await authenticator.user(credentials.credentials)


CurrentUser = Annotated[User, Depends(current_user)]


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
