"""Middleware that answers HEAD wherever GET is answered, as RFC 9110, section 9.1, requires.

A route of its own for HEAD comes first: some links must be signed for the method.
"""

from collections.abc import Mapping
from typing import Any

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

IS_HEAD = "is_head"
"""Key of a request's state: it is there if a route for GET answers HEAD. A stream must not begin then."""


def route_of(scope: Mapping[str, Any], method: str) -> BaseRoute | None:
    """Return the route that serves the path of ``scope`` with ``method``, if there is one."""
    asked = {**scope, "method": method}
    return next((route for route in scope["app"].routes if route.matches(asked)[0] is Match.FULL), None)


def _has_own_route(scope: Scope) -> bool:
    """Return whether a route of its own serves HEAD.

    A folder of files takes all methods of all paths below it, also where a route before it has taken GET.
    """
    found = route_of(scope, "HEAD")
    return found is not None and (not isinstance(found, Mount) or route_of(scope, "GET") is found)


class HeadRequests:
    """Serves HEAD by the route for GET, without the body of its response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or _has_own_route(scope):
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["method"] = "HEAD"  # for metrics and logs, and for the server
            elif message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # The route is noted in this scope, so a copy of it would have no name in metrics and logs.
        scope["method"] = "GET"
        scope.setdefault("state", {})[IS_HEAD] = True
        try:
            await self._app(scope, receive, without_body)
        finally:
            scope["method"] = "HEAD"
