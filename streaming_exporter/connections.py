"""What the HTTP clients need for their connections: TLS settings, the header with the token, threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from streaming_exporter.errors import BadSettings

if TYPE_CHECKING:
    import ssl

Result = TypeVar("Result")


@cache
def tls_settings() -> "ssl.SSLContext":
    """Return the TLS settings of all clients, loaded once: that stops an event loop for some 20 ms."""
    import httpx2

    return httpx2.create_ssl_context()


def token_headers(token: str) -> dict[str, str]:
    """Return the header with the token. Spaces and line ends around it, as in a file, are left out.

    Raises:
        BadSettings: no header can have the token. The text does not contain it.
    """
    token = token.strip()
    if not token:
        raise BadSettings("the token for the API is empty")
    if not (token.isascii() and token.isprintable()):
        raise BadSettings("the token for the API has characters that no token has, such as a line end inside")
    return {"Authorization": f"Bearer {token}"}


async def run_in_own_thread(work: Callable[[], Result]) -> Result:
    """Return the result of ``work``, which a new thread runs.

    The loop has few threads of its own, and it resolves names in them, so that nothing long can have one. If
    the caller is cancelled, the thread goes on until ``work`` ends.
    """
    thread = ThreadPoolExecutor(1, "exports")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, copy_context().run, work)
    finally:
        thread.shutdown(wait=False)
