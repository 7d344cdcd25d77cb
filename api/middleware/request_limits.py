"""Checks each call before its body is read: its framing, its token, and the limits of concurrent calls."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from api import audit_log
from api.auth.authenticator import USER_ERROR, User
from api.errors import Problem, problem_of
from api.middleware.paths import HEALTH_PATHS, is_stream, needs_token
from stream_app.settings import Settings
from streaming_exporter.errors import ExporterError

CONCURRENT_CALLS = 8
"""Calls of one user that are processed at a time. Further calls wait, so a user does not block others."""
RETRY_SECONDS = 1

BEGIN_WAIT = "begin_wait"
"""Key of a request's state: a function for a call that has done its work and only waits from now on. It gives
its turn and its place to other calls. :class:`~api.jobs.waiting.JobWaits` has the limits of such calls."""

STREAM = "stream"
"""Key of a request's state: it is there if the response is an event stream that has got its place."""

ANONYMOUS = "anonymous"
"""Key of a request's state: it is there if the token was checked, or needs no check, and there is no user."""

CLOSE = {"Connection": "close"}
"""Header that closes the connection: its body was not read, so no further request can be read."""


@dataclass(slots=True)
class ConcurrencyLimit:
    """Limits of concurrent calls or streams: of one user, and of all users together.

    Of the calls of one user, ``turns`` are processed at a time. The others wait and count apart, with the
    same limit of all, so that users with many waiting calls take no places of those who have few.
    """

    kind: str
    of_user: int
    of_all: int
    turns: int | None = None
    _total: int = 0
    _waiting: int = 0
    _users: Counter[str] = field(default_factory=Counter)

    def acquire(self, user: str) -> None:
        """Count one more call.

        Raises:
            Problem: 429 if a limit is reached.
        """
        waits = self._all_turns_taken(user)
        if (self._waiting if waits else self._total) >= self.of_all:
            raise _too_many(
                f"The service has reached its limit of {self.of_all} concurrent {self.kind}. Try again later"
            )
        if self._users[user] >= self.of_user:
            raise _too_many(
                f"You have reached the limit of {self.of_user} concurrent {self.kind}. Wait for one to end"
            )
        if waits:
            self._waiting += 1
        else:
            self._total += 1
        self._users[user] += 1

    def release(self, user: str) -> None:
        """Count one call less."""
        self._users[user] -= 1
        if self._all_turns_taken(user):  # one that waited has got the turn
            self._waiting -= 1
        else:
            self._total -= 1
        if not self._users[user]:
            del self._users[user]

    def _all_turns_taken(self, user: str) -> bool:
        return self.turns is not None and self._users[user] >= self.turns


@dataclass(slots=True)
class _Turns:
    """The calls of one user: those in process and those that wait."""

    free: asyncio.Semaphore
    users: int = 0


class RequestLimits:
    """Refuses calls above the limits before their bodies are read.

    Calls without a user do not count here, because otherwise everyone could block all users. Their limit is
    the number of connections, and :mod:`api.server` closes connections whose client does not read.
    """

    def __init__(self, app: ASGIApp, settings: Settings, *, concurrent_calls: int = CONCURRENT_CALLS) -> None:
        self._app = app
        self._concurrent_calls = concurrent_calls
        self._calls = ConcurrencyLimit(
            "calls", settings.user_call_limit, settings.api_call_limit, concurrent_calls
        )
        self._streams = ConcurrencyLimit(
            "event streams", settings.user_stream_limit, settings.api_stream_limit
        )
        self._turns: dict[str, _Turns] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in HEALTH_PATHS:
            scope.setdefault("state", {})[ANONYMOUS] = True
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        try:
            _check_single(scope)
            _check_framing(scope, headers)
            user = await self._user(scope, headers)
            bound = self._streams if is_stream(scope["method"], scope["path"]) else self._calls
            if user is not None:
                bound.acquire(user.id)
        except Problem as problem:
            if "user" not in scope["state"]:
                scope["state"][ANONYMOUS] = True
            problem.headers |= CLOSE if _has_body(headers) else {}
            await problem.response(scope["state"].get("request_id"))(scope, receive, send)
            return
        if user is None:
            scope["state"][ANONYMOUS] = True
            await self._app(scope, receive, send)
            return
        with ExitStack() as place:
            place.callback(bound.release, user.id)
            if bound is self._streams:
                scope["state"][STREAM] = True
                await self._app(scope, receive, send)
                return
            async with self._turn(user.id) as end_turn:

                def begin_wait() -> None:
                    end_turn()
                    place.close()

                scope["state"][BEGIN_WAIT] = begin_wait
                await self._app(scope, receive, send)

    async def _user(self, scope: Scope, headers: dict[bytes, bytes]) -> User | None:
        """Return the user of a valid token; ``None`` if there is no valid token and no body.

        Raises:
            Problem: the call has a body but no valid token.
        """
        services = getattr(scope["app"].state, "services", None)
        if services is None or not needs_token(scope["path"]):
            return None
        try:
            user: User = await services.authenticator.bearer(
                headers.get(b"authorization", b"").decode("latin-1")
            )
        except (Problem, ExporterError) as error:
            if not _has_body(headers):
                # The route answers with this error, because it also knows whether the path exists.
                scope["state"][USER_ERROR] = error
                return None
            raise error if isinstance(error, Problem) else problem_of(error) from error
        scope["state"]["user"] = user
        audit_log.set_actor(user)
        return user

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[Callable[[], None]]:
        """Wait for a turn of the user's calls; yield the function that ends it early."""
        turns = self._turns.setdefault(name, _Turns(asyncio.Semaphore(self._concurrent_calls)))
        turns.users += 1
        try:
            await turns.free.acquire()
            with ExitStack() as turn:
                turn.callback(turns.free.release)
                yield turn.close
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[name]


SINGLE_HEADERS = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"last-event-id"}
)
"""Headers that have one value, as RFC 9110, section 5.3, defines it. Of two values a proxy, this middleware
and a route could each take another one."""


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the last value of each header."""
    return dict(scope["headers"])


def _check_single(scope: Scope) -> None:
    """Refuse a header that is there twice but can have one value only.

    Raises:
        Problem: 400, there is such a header.
    """
    counts = Counter(name for name, _ in scope["headers"] if name in SINGLE_HEADERS)
    for name, count in counts.items():
        if count > 1:
            shown = name.decode("ascii").title()
            detail = f"The header {shown} is there {count} times. Send it once"
            raise Problem(400, "repeated_header", detail, field=shown)


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip() not in (b"", b"0")


def _check_framing(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Refuse a request that a proxy could read as two requests (RFC 9112, section 6.1).

    Raises:
        Problem: 400 if the length of the body is ambiguous.
    """
    if b"transfer-encoding" not in headers:
        return
    if b"content-length" in headers or scope.get("http_version") == "1.0":
        detail = "Transfer-Encoding cannot be combined with Content-Length or with HTTP/1.0. Send one of them"
        raise Problem(400, "ambiguous_length", detail)


def _too_many(detail: str) -> Problem:
    return Problem(429, "too_many_calls", detail, headers={"Retry-After": str(RETRY_SECONDS)})
