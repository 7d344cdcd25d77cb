"""A TCP proxy in front of a server, which can behave like a network that fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import chain
from urllib.parse import urlsplit


class TcpProxy:
    """Forwards connections.

    Attributes:
        is_silent: whether all bytes are swallowed, in old and new connections, which stay open.
        loses_answers: whether the bytes of the server are swallowed.
        refuses: whether new connections are closed at once.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self.is_silent = False
        self.loses_answers = False
        self.refuses = False
        self._breaks = 0

    def break_on_use(self) -> None:
        """Close each connection of this moment as soon as its client uses it, but not before."""
        self._breaks += 1

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection in a task."""
        writers = [writer]
        task = asyncio.create_task(self._forward(reader, writers))
        self._connections[task] = writers
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for writer in self._connections.pop(task):
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        """Copy both ways. The list gets the connection to the server, so that it is closed at any end."""
        if self.refuses:
            return
        with suppress(OSError):  # the server is away
            inner, outer = await asyncio.open_connection(*self._target)
            writers.append(outer)
            await asyncio.gather(self._copy(reader, outer), self._copy(inner, writers[0], is_answer=True))

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        breaks = self._breaks
        try:
            with suppress(OSError):
                while content := await reader.read(65_536):
                    if breaks < self._breaks and not is_answer:
                        return
                    if not self.is_silent and not (is_answer and self.loses_answers):
                        writer.write(content)
                        await writer.drain()
        finally:
            writer.close()

    async def drop(self) -> None:
        """Close all connections."""
        dropped = dict(self._connections)
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)
        for writer in chain(*dropped.values()):
            writer.transport.abort()  # also if its client does not read what is left


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """Run a proxy in front of the server of ``url``; yield it and the URL of the proxy."""
    parts = urlsplit(url)
    proxy = TcpProxy(str(parts.hostname), parts.port or 5432)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, url.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()
        await proxy.drop()
