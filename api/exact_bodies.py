"""Routes whose bodies keep all digits of their decimal numbers, for values of filters and parameters."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.documented_route import DocumentedRoute
from streaming_exporter.exact_numbers import exact_number


class _ExactRequest(Request):
    _content: Any = None
    _is_read = False

    async def json(self) -> Any:
        if not self._is_read:
            self._content, self._is_read = json.loads(await self.body(), parse_float=exact_number), True
        return self._content


class ExactRoute(DocumentedRoute):
    """A route that reads a decimal number which a double would round as a text."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route."""
        handle = super().get_route_handler()

        async def handle_exact(request: Request) -> Response:
            return await handle(_ExactRequest(request.scope, request.receive))

        return handle_exact
