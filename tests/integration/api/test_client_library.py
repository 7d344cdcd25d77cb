"""The client library calls the real API: submit, read, cancel, download; with and without an event loop."""

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import uvicorn

from api.app import create_app
from producers.tokens import sign_token
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.api_answers import Job
from streaming_exporter.async_client import AsyncClient
from streaming_exporter.client import Client
from streaming_exporter.errors import ApiError
from streaming_exporter.events import ExportRequest
from tests.integration.api.conftest import Harness
from tests.integration.api.test_files import split
from tests.waiting import until_async

REQUEST = ExportRequest(user_id="another", export_type="ledger", format="csv", filters={"id": {"lt": 9}})


@asynccontextmanager
async def served(api: Harness) -> AsyncIterator[str]:
    """Serve the API during the block; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(api.app, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await running


def test_a_request_has_the_fields_that_the_api_accepts() -> None:
    schemas = create_app(Settings()).openapi()["components"]["schemas"]
    assert (
        ExportRequest.model_fields.keys() - {"user_id", "priority", "claims"}
        == schemas["Order"]["properties"].keys()
    )


async def test_both_clients_wait_for_the_end_of_a_small_export(api: Harness) -> None:
    token = sign_token(api.settings, "user-8")

    async def finish(count: int) -> None:
        await until_async(lambda: _has(api, count))
        newest = (await api.queries.list_newest(None, limit=1))[0]
        await api.set(newest.id, status="completed", row_count=7)

    async with served(api) as url:
        async with AsyncClient(url, token) as client:
            job, _ = await asyncio.gather(client.submit_and_wait(REQUEST), finish(1))
            assert (job.finished, job.row_count) == (True, 7)
            assert (await client.submit_and_wait(REQUEST, seconds=1)).status == "pending"
        with Client(url, token) as blocking:
            job, _ = await asyncio.gather(asyncio.to_thread(blocking.submit_and_wait, REQUEST), finish(3))
            assert (job.finished, job.row_count) == (True, 7)
            again = await asyncio.to_thread(blocking.submit_and_wait, REQUEST, seconds=0)
            assert again.status == "pending"


@pytest.mark.parametrize("is_async", [True, False])
async def test_both_clients_follow_the_job_if_the_api_does_not_wait(api: Harness, is_async: bool) -> None:
    """Too many calls wait, or the server stops: the answer comes at once."""
    token = sign_token(api.settings, "user-9")
    waits = replace(api.services.job_waits)
    api.use(job_waits=waits)
    waits.stop()

    async def submit(seconds: int = 30) -> Job:
        if is_async:
            async with AsyncClient(url, token) as client:
                return await client.submit_and_wait(REQUEST, seconds=seconds)
        with Client(url, token) as blocking:
            return await asyncio.to_thread(blocking.submit_and_wait, REQUEST, seconds=seconds)

    async with served(api) as url:
        began = time.monotonic()
        assert (await submit(1)).status == "pending"
        assert time.monotonic() - began >= 1
        call = asyncio.create_task(submit())
        await until_async(lambda: _has(api, 2))
        await until_async(lambda: api.app.state.services.live_updates.listeners > 0)
        newest = (await api.queries.list_newest(None, limit=1))[0]
        await api.set(newest.id, status="completed", row_count=7)
        job = await call
        assert (job.finished, job.row_count) == (True, 7)


async def _has(api: Harness, count: int) -> bool:
    return await api.count() == count


async def test_the_asynchronous_client_submits_once_under_its_key_reads_and_cancels(api: Harness) -> None:
    token = sign_token(api.settings, "user-7")
    async with served(api) as url, AsyncClient(url, token) as client:
        job_id = await client.submit(REQUEST, idempotency_key="one")
        assert await client.submit(REQUEST, idempotency_key="one") == job_id
        assert await client.submit(REQUEST) != job_id
        job = await client.job(job_id)
        assert job is not None
        assert (job.export_job_id, job.export_type, job.finished) == (job_id, "ledger", False)
        record = await client.record(job_id)
        assert (record["user_id"], record["filters"]) == ("user-7", {"id": {"lt": 9}})
        await client.cancel(job_id)
        assert await client.job(uuid4()) is None
        with pytest.raises(ApiError) as refused:
            await client.submit(REQUEST.model_copy(update={"export_type": "unknown"}))
        assert refused.value.status == 422
        with pytest.raises(ApiError) as early:
            async with client.file(job_id):
                pass
        assert early.value.status == 409


async def test_the_synchronous_client_does_the_same(api: Harness) -> None:
    token = sign_token(api.settings, "user-8")

    def use(url: str) -> UUID:
        with Client(url, token) as client:
            job_id = client.submit(REQUEST, idempotency_key="one")
            assert client.submit(REQUEST, idempotency_key="one") == job_id
            job = client.job(job_id)
            assert job is not None
            assert not job.finished
            client.cancel(job_id)
            return job_id

    async with served(api) as url:
        job_id = await asyncio.to_thread(use, url)
    record = await api.queries.get(job_id)
    assert record is not None
    assert record.user_id == "user-8"


async def test_a_file_is_read_in_pieces_from_the_store_without_the_token() -> None:
    content = b"id,kind\n" * 100_000
    headers: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        headers.append(head)
        url = f"http://127.0.0.1:{port}/store"
        if b"/download " in head:
            writer.write(f"HTTP/1.1 307 -\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            writer.write(b"HTTP/1.1 200 -\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(content))
            writer.write(content)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"http://127.0.0.1:{port}", "secret") as client:
            digest = hashlib.sha256()
            async with client.file(uuid4()) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
    assert digest.digest() == hashlib.sha256(content).digest()
    assert [b"secret" in head for head in headers] == [True, False]


async def test_the_clients_list_several_files_and_read_one_from_any_byte(
    api: Harness, storage: ObjectStore
) -> None:
    async with api.user(user_id="user-9") as owner:
        job_id = UUID(await split(api, storage, owner, 3))
    token = sign_token(api.settings, "user-9")

    def use(url: str) -> tuple[list[int], bytes]:
        with Client(url, token) as client:
            numbers = [file.number for file in client.files(job_id)]
            with client.file(job_id, 2, start=3) as chunks:
                return numbers, b"".join(chunks)

    async with served(api) as url, AsyncClient(url, token) as client:
        assert [file.file_size for file in await client.files(job_id)] == [5, 5, 5]
        async with client.file(job_id, 2, start=3) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"2\n"
        with pytest.raises(ApiError, match="no file 4"):
            async with client.file(job_id, 4):
                pass
        assert await asyncio.to_thread(use, url) == ([1, 2, 3], b"2\n")
