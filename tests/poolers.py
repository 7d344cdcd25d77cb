"""Connection poolers in front of the source: a strict proxy, and pgbouncer where it is installed."""

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from dev.process import free_ports, is_open
from tests.waiting import at_most, patient

KNOWN = {"user", "database", "client_encoding"}
SSL_REQUEST, GSS_REQUEST, CANCEL = 80877103, 80877104, 80877102

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
POOLERS = ["door", "pgbouncer"] if PGBOUNCER else ["door"]
"""The poolers that can be tested. pgbouncer is a system package, which ``make test`` installs."""


@asynccontextmanager
async def through(kind: str, url: str) -> AsyncIterator[str]:
    """Run a pooler of this kind in front of the database of ``url``; yield the URL of the pooler."""
    opened = through_pgbouncer(url) if kind == "pgbouncer" else through_door(url)
    async with opened as address:
        yield address


@asynccontextmanager
async def through_door(url: str) -> AsyncIterator[str]:
    """Run a proxy that refuses connections with startup parameters, with the error of pgbouncer."""
    parts = urlsplit(url)
    served: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await _pass(reader, writer, str(parts.hostname), parts.port or 5432)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield url.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    while True:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        packet = await reader.readexactly(length - 4)
        (code,) = struct.unpack("!i", packet[:4])
        if code not in (SSL_REQUEST, GSS_REQUEST):
            break
        writer.write(b"N")
    if code != CANCEL:
        words = packet[4:].rstrip(b"\0").split(b"\0")
        unknown = [name.decode() for name in words[::2] if name.decode() not in KNOWN]
        if unknown:
            text = f"unsupported startup parameter: {unknown[0]}".encode()
            body = b"SFATAL\0C08P01\0M" + text + b"\0\0"
            writer.write(b"E" + struct.pack("!i", len(body) + 4) + body)
            await writer.drain()
            return
    inner, outer = await asyncio.open_connection(host, port)
    outer.write(struct.pack("!i", length) + packet)
    await asyncio.gather(_pump(reader, outer), _pump(inner, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def through_pgbouncer(url: str) -> AsyncIterator[str]:
    """Run pgbouncer in transaction mode with two server connections and otherwise default settings."""
    assert PGBOUNCER is not None
    parts = urlsplit(url)
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)
    users, settings = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"{parts.username}" "{parts.password}"\n')
    settings.write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = scram-sha-256\n"
        f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = 2\nunix_socket_dir =\n"
    )
    for path in (users, settings):
        path.chmod(0o644)
    command = [PGBOUNCER, str(settings)]
    user = "nobody" if os.geteuid() == 0 else None
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with at_most(30):
            while not is_open(port):
                assert process.poll() is None, "pgbouncer ended"
                await asyncio.sleep(0.02)
        yield url.replace(f":{parts.port}/", f":{port}/")
    finally:
        process.terminate()
        process.wait(patient(10))
        shutil.rmtree(folder)
