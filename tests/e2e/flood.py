"""Clients that send too many requests: ``python -m tests.e2e.flood KIND PORT TOKEN``.

The program prints ``ready`` when the flood has begun, and continues until it is stopped.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

BODY = b"x" * 1_000_000
ORDER = json.dumps({"export_type": "ledger", "format": "csv"}).encode()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


def head(method: str, path: str, token: str | None, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: api", *more]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def bodies(port: int, token: str) -> None:
    """Send a large body without a token."""
    _, writer = await connect(port)
    try:
        length = f"Content-Length: {len(BODY)}"
        writer.write(head("POST", "/exports/jobs", None, "Content-Type: application/json", length) + BODY)
        await writer.drain()
    finally:
        writer.close()


async def streams(port: int, token: str) -> None:
    """Open a further stream of a user and keep it open."""
    reader, writer = await connect(port)
    writer.write(head("GET", "/exports/events", token, "Accept: text/event-stream"))
    try:
        while await reader.read(65_536):
            pass
    finally:
        writer.close()


async def headers(port: int, token: str) -> None:
    """Begin a request and never finish its headers."""
    reader, writer = await connect(port)
    writer.write(b"GET /exports/jobs HTTP/1.1\r\nHost: api\r\nX-Slow: ")
    try:
        await reader.read()
    finally:
        writer.close()


async def readiness(port: int, token: str) -> None:
    """Call the readiness check."""
    await ask(port, head("GET", "/readyz", None, "Connection: close"))


async def orders(port: int, token: str) -> None:
    """Submit a further export of a user."""
    length = f"Content-Length: {len(ORDER)}"
    more = ("Content-Type: application/json", length, "Connection: close")
    await ask(port, head("POST", "/exports/jobs", token, *more) + ORDER)


async def ask(port: int, request: bytes) -> None:
    reader, writer = await connect(port)
    try:
        writer.write(request)
        await reader.read()
    finally:
        writer.close()


KINDS: dict[str, tuple[Callable[[int, str], Awaitable[None]], int]] = {
    "bodies": (bodies, 20),
    "streams": (streams, 800),
    "headers": (headers, 800),
    "readiness": (readiness, 100),
    "orders": (orders, 400),
}
"""The action that each client repeats, and the number of clients."""


async def flood(kind: str, port: int, token: str) -> None:
    act, count = KINDS[kind]

    async def client() -> None:
        while True:
            with suppress(OSError):
                await act(port, token)
            await asyncio.sleep(0.2)  # the speed of this program must not limit the flood

    tasks = [asyncio.create_task(client()) for _ in range(count)]
    await asyncio.sleep(0.5)
    print("ready", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(flood(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
