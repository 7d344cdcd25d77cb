"""Cancels work when the client closes its connection."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from starlette.requests import Request

from api.errors import Problem

Result = TypeVar("Result")


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of ``work``; cancel it when the client disconnects.

    For work that changes nothing. The body of the request must have been read before.

    Raises:
        Problem: 408 if the client has closed its connection.
    """
    return await until_disconnect(request, work, _refuse)


def _refuse() -> NoReturn:
    raise Problem(408, "client_disconnected", "The client closed its connection")


async def until_disconnect(
    request: Request, work: Coroutine[Any, Any, Result], otherwise: Callable[[], Result]
) -> Result:
    """Return the result of ``work``. When the client disconnects, cancel it and return that of ``otherwise``.

    The body of the request must have been read before.
    """
    task = asyncio.create_task(work)
    disconnected = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else otherwise()
    finally:
        for one in (task, disconnected):
            one.cancel()
        await asyncio.wait({task, disconnected})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
