"""Sends one HTTP request repeatedly over several connections, and measures the responses."""

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """The seconds of each response, and the duration of the whole measurement."""

    latencies: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """The requests a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, part: float) -> float:
        """Return the seconds within which the share ``part`` of the responses came."""
        return sorted(self.latencies)[int(part * (len(self.latencies) - 1))]


async def load(
    port: int, path: str, headers: dict[str, str], *, connections: int, seconds: float, status: int = 200
) -> Load:
    """Request ``path`` for ``seconds``; each connection sends its next request after each answer.

    Raises:
        RuntimeError: an answer has another status.
    """
    lines = [f"GET {path} HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    latencies: list[float] = []
    started = time.perf_counter()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begin := time.perf_counter()) < started + seconds:
            writer.write(request)
            await _answer(reader, status)
            latencies.append(time.perf_counter() - begin)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return Load(latencies, time.perf_counter() - started)


async def _answer(reader: asyncio.StreamReader, status: int) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if int(head[9:12]) != status:
        raise RuntimeError(head.decode("latin-1").partition("\r\n")[0])
    _, found, length = head.lower().partition(b"content-length:")
    if found:
        await reader.readexactly(int(length.partition(b"\r\n")[0]))
