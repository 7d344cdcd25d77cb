"""A TCP proxy in front of a server, which can behave like a network that fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
        self._connections: set[asyncio.Task[None]] = set()
        self.is_silent = False
        self.loses_answers = False
        self.refuses = False
        self._breaks = 0

    def break_on_use(self) -> None:
        """Close each connection of this moment as soon as its client uses it, but not before."""
        self._breaks += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        if self.refuses:
            writer.close()
            return
        try:
            inner, outer = await asyncio.open_connection(*self._target)
        except OSError:  # the server is away
            writer.close()
            return
        for copy in (self._copy(reader, outer), self._copy(inner, writer, is_answer=True)):
            task = asyncio.create_task(copy)
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

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
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """Run a proxy in front of the server of ``url``; yield it and the URL of the proxy."""
    parts = urlsplit(url)
    proxy = TcpProxy(str(parts.hostname), parts.port or 5432)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, url.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()
        await proxy.drop()
