"""A proxy in front of PostgreSQL that gives each connection a limited rate, as a network does.

``python -m bench.throttle HOST:PORT RATE`` prints the port that it listens on, and runs until it is stopped.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

PIECE = 64 * 2**10


@contextmanager
def throttled(url: str, rate: int) -> Iterator[str]:
    """Run the proxy for the block, and yield the database's URL through it.

    Args:
        url: URL of the database.
        rate: bytes a second that each connection receives from the database.
    """
    address = urlsplit(url)
    command = [sys.executable, "-m", "bench.throttle", f"{address.hostname}:{address.port}", str(rate)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    ) as proxy:
        assert proxy.stdout is not None
        try:
            port = int(proxy.stdout.readline())
            yield url.replace(f":{address.port}/", f":{port}/")
        finally:
            proxy.terminate()


async def _serve(host: str, port: int, rate: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(host, port)
        await asyncio.gather(_pass(reader, outer, None), _pass(inner, writer, rate))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int | None) -> None:
    """Pass bytes on, at most ``rate`` a second. Time without bytes is not made up for."""
    due = time.monotonic()
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
            if rate is not None:
                due = max(due, time.monotonic() - 0.05) + len(data) / rate
                await asyncio.sleep(due - time.monotonic())
    except OSError:
        pass  # the other side is gone
    finally:
        writer.close()


if __name__ == "__main__":
    host, _, port = sys.argv[1].partition(":")
    asyncio.run(_serve(host, int(port), int(sys.argv[2])))
