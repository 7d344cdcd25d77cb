"""Clients share what is slow to make, keep the token to themselves, and leave the loop's threads alone."""

import asyncio
import traceback
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from contextvars import ContextVar
from pathlib import Path
from threading import Event
from typing import Any, get_origin, get_type_hints
from uuid import UUID

import httpx2
import pytest

from streaming_exporter import AsyncExportClient, ExportClient
from streaming_exporter.api_answers import Job
from streaming_exporter.errors import ApiError, BadSettings, ExporterError
from tests.rows import each_row
from tests.unit.producers.fake_server import fake_server
from tests.waiting import WITHIN, patient

JOB = UUID("4f1c0de0-0000-4000-8000-000000000001")
SECRET = "MARKER-0123456789"
COUNTED = ContextVar("COUNTED", default=0)


async def test_only_the_first_client_loads_tls_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    async with AsyncExportClient("https://api", "t"):
        monkeypatch.setattr("httpx2.create_ssl_context", load)
        monkeypatch.setattr("ssl.create_default_context", load)
        with ExportClient("https://api", "t"):
            pass
        async with AsyncExportClient("https://other", "t"):
            pass


@each_row("client", [ExportClient, AsyncExportClient])
@each_row("token", [f"{SECRET}\n{SECRET}", f"{SECRET}\0", f"{SECRET}é", f"{SECRET}\x7f", " \n"])
def test_a_token_that_no_header_can_have_is_refused_without_its_text(
    client: type[ExportClient | AsyncExportClient], token: str
) -> None:
    with pytest.raises(BadSettings, match="the token for the API") as caught:
        client("http://api", token)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_end_of_the_line_of_a_file_is_no_part_of_the_token() -> None:
    with fake_server() as server, ExportClient(server.url, f" {SECRET}\r\n") as client:
        assert client.job(JOB) is None
        assert server.seen[0][1]["Authorization"] == f"Bearer {SECRET}"


async def test_a_header_that_cannot_be_sent_is_not_in_the_error() -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.LocalProtocolError(f"Illegal header value b'Bearer {SECRET} '")

    with ExportClient("http://api", "t") as client:
        client._http.close()
        client._http = httpx2.Client(base_url="http://api", transport=httpx2.MockTransport(refuse))
        with pytest.raises(ApiError, match="a header that HTTP does not allow") as caught:
            client.record(JOB)
    assert SECRET not in str(caught.value)


async def test_downloads_take_no_thread_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host resolves names in these threads."""
    started, released, counted = asyncio.Semaphore(0), Event(), list[int]()

    def stall(*_: object, **__: object) -> list[Path]:
        counted.append(COUNTED.get())
        loop.call_soon_threadsafe(started.release)
        assert released.wait(patient(WITHIN))
        return []

    monkeypatch.setattr(ExportClient, "download", stall)
    loop = asyncio.get_running_loop()
    COUNTED.set(7)
    with ThreadPoolExecutor(1) as only:
        loop.set_default_executor(only)
        async with AsyncExportClient("http://api", "t") as client:
            running = [asyncio.ensure_future(client.download(JOB)) for _ in range(2)]
            try:
                for _ in running:
                    await asyncio.wait_for(started.acquire(), patient(10))
                assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), patient(10))
                assert not any(each.done() for each in running)
            finally:
                released.set()
            assert await asyncio.gather(*running) == [[], []]
    assert counted == [7, 7], "the context of the caller"


@pytest.mark.parametrize("name", ["events", "jobs"])
def test_iterators_are_generators_that_users_can_close(name: str) -> None:
    returned: Any = get_type_hints(getattr(ExportClient, name))["return"]
    assert get_origin(returned) is Generator
    returned = get_type_hints(getattr(AsyncExportClient, name))["return"]
    assert get_origin(returned) is AsyncGenerator


async def test_users_close_them() -> None:
    """The types of these calls are checked, too."""
    with fake_server() as server, ExportClient(server.url, "t") as client:
        found: list[Job] = []
        with closing(client.events(JOB)) as jobs, pytest.raises(ExporterError):
            found.extend(jobs)
        async with AsyncExportClient(server.url, "t") as other, aclosing(other.events(JOB)) as later:
            with pytest.raises(ExporterError):
                await anext(later)
    assert not found
