"""Clients follow a job through streams that break: they go on after the last event, or read the job."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from streaming_exporter import AsyncExportClient, ExportClient
from streaming_exporter.api_answers import Job
from streaming_exporter.errors import ApiError
from streaming_exporter.job_events import MAX_ASKED_SECONDS, UNKNOWN_SECONDS, JobFollower

JOB = uuid4()
BROKEN = 0
"""A status: the connection is closed without a response."""
PAGE = "<html>"
"""The body of a proxy's answer."""


def document(status: str) -> str:
    return json.dumps({"export_job_id": str(JOB), "status": status, "export_type": "ledger", "format": "csv"})


def event(number: int, status: str) -> str:
    return f": ping\n\nid: {number}\nevent: job\ndata: {document(status)}\n\n"


@asynccontextmanager
async def answering(
    streams: Sequence[tuple[int, str]], job: tuple[int, str] = (503, "")
) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve ``streams`` in their order, and ``job`` for each read; yield the URL and the `Last-Event-ID`s."""
    waiting, resumed = list(streams), list[str]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "/events " in head:
            resumed.append(head.partition("last-event-id: ")[2].partition("\r\n")[0])
        status, body = (waiting.pop(0) if waiting else (503, "")) if "/events " in head else job
        if status != BROKEN:
            kind = "text/event-stream" if "/events " in head and status == 200 else "application/json"
            kind = "text/html" if body == PAGE else kind
            headers = f"Connection: close\r\nContent-Type: {kind}\r\nLocation: https://login.example/"
            writer.write(f"HTTP/1.1 {status} -\r\n{headers}\r\n\r\n{body}".encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", resumed


async def follow(url: str, *, is_async: bool, **limits: Any) -> list[str]:
    """Return the states that a client sees until the job has ended."""
    if is_async:
        async with AsyncExportClient(url, "t") as client:
            return [job.status async for job in client.events(JOB, **limits)]

    def read() -> list[str]:
        with ExportClient(url, "t") as client:
            return [job.status for job in client.events(JOB, **limits)]

    return await asyncio.to_thread(read)


async def read(url: str, *, is_async: bool) -> Job | None:
    """Return the job."""
    if is_async:
        async with AsyncExportClient(url, "t") as client:
            return await client.job(JOB)
    with ExportClient(url, "t") as client:
        return await asyncio.to_thread(client.job, JOB)


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def _short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a short part of their pauses, which have a test of their own."""
    if "is_async" in request.fixturenames:
        pause = JobFollower.pause
        monkeypatch.setattr(JobFollower, "pause", lambda follower: pause(follower) / 50)


@both
async def test_a_stream_that_breaks_is_opened_again_after_its_last_event(is_async: bool) -> None:
    streams = [
        (200, event(1, "pending")),
        (BROKEN, ""),
        (200, event(2, "processing") + event(3, "completed")),
    ]
    async with answering(streams) as (url, resumed):
        assert await follow(url, is_async=is_async) == ["pending", "processing", "completed"]
    assert resumed == ["", "1", "1"]


@both
async def test_while_streams_are_refused_the_job_is_read(is_async: bool) -> None:
    async with answering([(429, ""), (503, "")], job=(200, document("failed"))) as (url, _):
        assert await follow(url, is_async=is_async) == ["failed"]


@both
async def test_a_job_that_does_not_end_in_time_is_a_time_out(is_async: bool) -> None:
    async with answering([(200, event(1, "pending"))]) as (url, _):
        with pytest.raises(TimeoutError, match=str(JOB)):
            await follow(url, is_async=is_async, timeout=0.1)


@both
async def test_an_unknown_job_is_an_error_unless_it_can_still_be_admitted(is_async: bool) -> None:
    async with answering([(404, "")] * 2 + [(200, event(1, "completed"))]) as (url, _):
        with pytest.raises(ApiError) as unknown:
            await follow(url, is_async=is_async)
        assert unknown.value.status == 404
        assert await follow(url, is_async=is_async, admission=20) == ["completed"]


@both
async def test_a_job_that_was_seen_and_is_unknown_for_a_moment_is_followed_on(is_async: bool) -> None:
    """A proxy answers 404 while the API behind it is away."""
    streams = [(200, event(1, "pending")), (404, ""), (200, event(2, "completed"))]
    async with answering(streams, job=(404, "")) as (url, _):
        assert await follow(url, is_async=is_async) == ["pending", "completed"]


@both
@pytest.mark.parametrize("foreign", [(200, PAGE), (302, PAGE), (200, "event: job\ndata: {}\n\n")], ids=str)
async def test_a_job_that_was_seen_is_followed_on_after_a_foreign_answer(
    is_async: bool, foreign: tuple[int, str]
) -> None:
    """A proxy answers for the API during a deployment: the streams, and then the reads of the job, too."""
    streams = [(200, event(1, "pending")), foreign, foreign, (200, event(2, "completed"))]
    async with answering(streams, job=foreign) as (url, resumed):
        assert await follow(url, is_async=is_async) == ["pending", "completed"]
    assert resumed == ["", "1", "1", "1"]


@both
@pytest.mark.timeout(5)
@pytest.mark.parametrize("foreign", [(200, PAGE), (302, PAGE)], ids=str)
async def test_a_foreign_answer_before_the_job_was_seen_ends_the_following(
    is_async: bool, foreign: tuple[int, str]
) -> None:
    async with answering([foreign], job=foreign) as (url, _):
        with pytest.raises(ApiError, match="does not answer as the exporter's API does") as caught:
            await follow(url, is_async=is_async, admission=20)
    assert (caught.value.status, caught.value.is_foreign) == (foreign[0], True)


@both
@pytest.mark.timeout(5)
@pytest.mark.parametrize("job", [(401, ""), (403, ""), (404, ""), (200, "<html>"), (308, "")], ids=str)
async def test_a_refusal_of_the_job_itself_ends_the_following(is_async: bool, job: tuple[int, str]) -> None:
    """The streams fail in a way that can pass, for ever."""
    async with answering([], job=job) as (url, _):
        with pytest.raises(ApiError) as caught:
            await follow(url, is_async=is_async)
    assert caught.value.status == job[0]


@both
@pytest.mark.parametrize(
    ("body", "is_foreign"),
    [
        ('{"title": "Not Found", "code": "not_found"}', None),
        ('{"title": "Not Found", "code": "no_such_call"}', False),
        ('{"title": "Not Found"}', True),
        (PAGE, True),
    ],
)
async def test_only_the_api_says_that_there_is_no_such_job(
    is_async: bool, body: str, is_foreign: bool | None
) -> None:
    async with answering([], job=(404, body)) as (url, _):
        if is_foreign is None:
            assert await read(url, is_async=is_async) is None
            return
        with pytest.raises(ApiError) as caught:
            await read(url, is_async=is_async)
    assert (caught.value.status, caught.value.is_foreign) == (404, is_foreign)


@both
async def test_a_stream_that_has_nothing_after_the_last_event_is_its_end(is_async: bool) -> None:
    streams = [(200, event(1, "pending")), (204, ""), (204, "")]
    async with answering(streams, job=(200, document("completed"))) as (url, _):
        assert await follow(url, is_async=is_async) == ["pending", "completed"]


@pytest.mark.parametrize(
    "unknown",
    [ApiError("unknown", status=404), ApiError("unknown", status=200, is_foreign=True)],
    ids=["404", "foreign"],
)
def test_a_job_that_stays_unknown_ends_the_following(unknown: ApiError) -> None:
    now = [0.0]
    follower = JobFollower(JOB, timeout=None, admission=0, clock=lambda: now[0])
    with pytest.raises(ApiError, match="unknown"):
        follower.failed(unknown)
    follower.note_job()
    follower.failed(unknown)
    now[0] = UNKNOWN_SECONDS
    with pytest.raises(ApiError, match="unknown"):
        follower.failed(unknown)
    follower.note_job()
    follower.failed(unknown)


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 502, 503, 504])
def test_a_refusal_that_can_pass_does_not_end_the_following(status: int | None) -> None:
    JobFollower(JOB, timeout=None, admission=0).failed(ApiError("later", status=status))


@pytest.mark.parametrize("status", [200, 400, 401, 403, 410])
def test_a_refusal_that_stays_ends_the_following(status: int) -> None:
    with pytest.raises(ApiError, match="no"):
        JobFollower(JOB, timeout=None, admission=9).failed(ApiError("no", status=status))


@pytest.mark.parametrize(("asked", "least"), [(None, 0.25), (7.0, 7.0), (86_400.0, MAX_ASKED_SECONDS)])
def test_the_time_that_the_api_asks_for_is_waited_once(asked: float | None, least: float) -> None:
    follower = JobFollower(JOB, timeout=None, admission=0)
    follower.failed(ApiError("later", status=429, retry_after=asked))
    assert follower.pause() == least
    assert follower.pause() == 0.5
