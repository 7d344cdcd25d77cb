"""Calls that are refused before their bodies are read, and limits of concurrent calls (S11, S17, Q4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request

from api.auth.authenticator import Authenticator, CurrentUser, User
from api.auth.signing_keys import SharedSecret
from api.error_handlers import install
from api.errors import Problem
from api.middleware.request_context import RequestContext
from api.middleware.request_limits import SINGLE_HEADERS, ConcurrencyLimit, RequestLimits
from producers.tokens import sign_token
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable
from tests.rows import each_row
from tests.waiting import at_most, until_async

LIMITS: dict[str, Any] = {
    "user_call_limit": 3,
    "api_call_limit": 6,
    "user_stream_limit": 2,
    "api_stream_limit": 5,
}
SETTINGS = Settings(_env_file=None, **LIMITS)

TURNS = 100
"""More turns of the loop than a call needs to begin."""


class Served:
    """An application whose calls last until the test ends them."""

    def __init__(self, concurrent_calls: int = 8) -> None:
        self.begun = 0
        self.most = 0
        self.requests: list[Request] = []
        self.go = asyncio.Event()
        app = FastAPI()
        running = 0

        async def last(request: Request, user: CurrentUser) -> str:
            nonlocal running
            running += 1
            self.begun += 1
            self.requests.append(request)
            self.most = max(self.most, running)
            await self.go.wait()
            running -= 1
            return user.id

        async def last_of_nobody() -> str:
            self.begun += 1
            await self.go.wait()
            return "page"

        for path in ("/exports/jobs", "/exports/events", "/exports/jobs/{job_id}/events"):
            app.add_api_route(path, last, methods=["GET", "POST"])
        for path in ("/page", "/exports/links/{token}"):
            app.add_api_route(path, last_of_nobody)
        app.add_middleware(RequestLimits, settings=SETTINGS, concurrent_calls=concurrent_calls)
        app.add_middleware(RequestContext)
        install(app)
        authenticator = Authenticator(SETTINGS, SharedSecret(SETTINGS.jwt_secret.get_secret_value()))
        app.state.services = SimpleNamespace(authenticator=authenticator)
        self.app = app

    @asynccontextmanager
    async def user(self, name: str | None) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {"Authorization": f"Bearer {sign_token(SETTINGS, name)}"} if name else {}
        transport = httpx2.ASGITransport(self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
            yield client

    async def until(self, count: int) -> None:
        async with at_most(10):
            while self.begun < count:  # noqa: ASYNC110 - the calls are what begins
                await asyncio.sleep(0.005)

    async def start(
        self, client: httpx2.AsyncClient, path: str, count: int, *, waiting: int = 0
    ) -> list["asyncio.Task[httpx2.Response]"]:
        """Begin calls, of which ``waiting`` wait for their turn. The others are answered or have begun."""
        before = self.begun
        tasks = [asyncio.create_task(client.get(path)) for _ in range(count)]

        def begun_or_answered() -> bool:
            answered = sum(task.done() and task.result().status_code != 200 for task in tasks)
            begun = self.begun - before
            assert begun + answered <= count - waiting
            return begun + answered == count - waiting

        await until_async(begun_or_answered)
        for _ in range(TURNS if waiting else 0):
            await asyncio.sleep(0)  # those that wait get as far as they can
        assert begun_or_answered()
        return tasks


async def statuses(tasks: list[Any]) -> list[int]:
    return sorted(response.status_code for response in await asyncio.gather(*tasks))


@pytest.mark.parametrize("path", ["/exports/jobs", "/exports/events", "/exports/jobs/7/events"])
async def test_one_user_has_a_limit_and_others_are_served(path: str) -> None:
    served = Served()
    allowed = 2 if path.endswith("/events") else 3
    async with served.user("ada") as ada, served.user("bob") as bob:
        many = await served.start(ada, path, 10)
        refused = [task.result() for task in many if task.done()]
        assert len(refused) == 10 - allowed
        for response in refused:
            assert response.status_code == 429
            assert response.headers["retry-after"] == "1"
            assert response.json()["code"] == "too_many_calls"
        other = await served.start(bob, path, 1)
        served.go.set()
        assert await statuses(many) == [200] * allowed + [429] * (10 - allowed)
        assert await statuses(other) == [200]
        assert (await ada.get(path)).status_code == 200, "what has ended does not count"


async def test_one_process_has_a_limit() -> None:
    served = Served()
    tasks: list[Any] = []
    for number in range(4):
        async with served.user(f"user-{number}") as client:
            tasks += await served.start(client, "/exports/jobs", 3)
    served.go.set()
    assert await statuses(tasks) == [200] * 6 + [429] * 6


@pytest.mark.parametrize("path", ["/page", "/exports/links/abc"])
async def test_calls_without_a_user_block_no_user(path: str) -> None:
    served = Served()
    async with served.user(None) as nobody, served.user("ada") as ada:
        slow = await served.start(nobody, path, 20)
        assert served.begun == 20
        calls = await served.start(ada, "/exports/jobs", 3)
        assert served.begun == 23
        served.go.set()
        assert await statuses(slow + calls) == [200] * 23


async def test_calls_without_a_user_are_answered_at_the_limit_of_users() -> None:
    served = Served()
    tasks: list[Any] = []
    for number in range(2):
        async with served.user(f"user-{number}") as client:
            tasks += await served.start(client, "/exports/jobs", 3)
    async with served.user(None) as nobody:
        tasks += await served.start(nobody, "/page", 1)
        assert (await nobody.get("/exports/jobs")).status_code == 401
    served.go.set()
    assert await statuses(tasks) == [200] * 7


async def test_streams_do_not_count_as_calls() -> None:
    served = Served()
    async with served.user("ada") as ada:
        streams = await served.start(ada, "/exports/events", 2)
        calls = await served.start(ada, "/exports/jobs", 3)
        await served.until(5)
        served.go.set()
        assert await statuses(streams + calls) == [200] * 5


async def test_calls_of_one_user_take_turns_except_for_those_that_wait_for_a_job() -> None:
    served = Served(concurrent_calls=1)
    async with served.user("ada") as ada:
        tasks = await served.start(ada, "/exports/jobs", 2, waiting=1)
        assert served.begun == 1
        served.requests[0].state.begin_wait()
        served.requests[0].state.begin_wait()  # a second time it does nothing
        await served.until(2)
        tasks += await served.start(ada, "/exports/jobs", 1, waiting=1)
        assert served.begun == 2
        served.go.set()
        assert await statuses(tasks) == [200] * 3


async def test_calls_that_wait_for_a_job_take_no_place_of_others() -> None:
    served = Served()
    async with served.user("ada") as ada, served.user("bob") as bob:
        tasks = []
        for _ in range(4):
            begun = served.begun
            tasks += await served.start(ada, "/exports/jobs", 3)
            for request in served.requests[begun:]:
                request.state.begin_wait()
        tasks += await served.start(ada, "/exports/jobs", 3)
        tasks += await served.start(bob, "/exports/jobs", 3)
        refused = await served.start(bob, "/exports/jobs", 1)
        served.go.set()
        assert await statuses(tasks) == [200] * 18
        assert await statuses(refused) == [429]
        served.go.clear()
        tasks = await served.start(ada, "/exports/jobs", 4)
        served.go.set()
        assert await statuses(tasks) == [200] * 3 + [429], "each place was given back once"


async def test_a_disconnected_client_releases_its_calls() -> None:
    served = Served()
    async with served.user("ada") as ada:
        tasks = await served.start(ada, "/exports/jobs", 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        served.go.set()
        assert await statuses(await served.start(ada, "/exports/jobs", 3)) == [200] * 3


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer a.b.c"}, {"Authorization": "Basic YTpi"}])
async def test_without_a_token_no_body_is_read(header: dict[str, str]) -> None:
    served = Served()
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 1024

    scope = {
        "type": "http", "method": "POST", "path": "/exports/jobs", "raw_path": b"/exports/jobs",
        "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("api", 80),
        "client": ("127.0.0.1", 1), "root_path": "",
        "headers": [(b"host", b"api"), (b"transfer-encoding", b"chunked")]
        + [(name.lower().encode(), value.encode()) for name, value in header.items()],
    }  # fmt: skip
    parts = body()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": await anext(parts), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await served.app(scope, receive, send)
    assert sent[0]["status"] == 401
    assert (b"connection", b"close") in sent[0]["headers"]
    assert read == served.begun == 0


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", {"content-length": "2", "transfer-encoding": "chunked"}, 400),
        ("1.0", {"transfer-encoding": "chunked"}, 400),
        ("1.1", {"transfer-encoding": "chunked"}, 200),
        ("1.1", {"content-length": "2"}, 200),
    ],
)
async def test_an_ambiguous_length_is_refused(version: str, headers: dict[str, str], status: int) -> None:
    """S17"""
    served = Served()
    served.go.set()
    raw = {"host": "api", "authorization": f"Bearer {sign_token(SETTINGS, 'ada')}", **headers}
    sent = await answer(served, "POST", list(raw.items()), version)
    assert sent["status"] == status
    assert ((b"connection", b"close") in sent["headers"]) == (status == 400)


async def answer(
    served: Served, method: str, headers: list[tuple[str, str]], version: str = "1.1"
) -> dict[str, Any]:
    """Return the beginning of the answer to a call with these headers, which can be there more than once."""
    scope = {
        "type": "http", "method": method, "path": "/exports/jobs", "raw_path": b"/exports/jobs",
        "query_string": b"", "http_version": version, "scheme": "http", "server": ("api", 80),
        "client": ("127.0.0.1", 1), "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await served.app(scope, receive, send)
    found: dict[str, Any] = sent[0]
    return found


@each_row("name", sorted(SINGLE_HEADERS))
@each_row("method", ["GET", "POST"])
async def test_a_header_with_one_value_is_refused_when_it_is_there_twice(name: bytes, method: str) -> None:
    served = Served()
    served.go.set()
    token = f"Bearer {sign_token(SETTINGS, 'ada')}"
    usual = {"authorization": token, "host": "api", "content-length": "2"}
    headers = list(usual.items())
    assert (await answer(served, method, headers))["status"] == 200
    header = name.decode()
    for first, second in ((usual.get(header, "1"), "x"), ("x", usual.get(header, "1"))):
        others = [item for item in headers if item[0] != header]
        sent = await answer(served, method, [*others, (header, first), (header, second)])
        assert sent["status"] == 400, (first, second)


async def test_the_token_of_a_call_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails and would succeed a moment later cannot serve a call that counts for no user."""
    served = Served()
    served.go.set()
    authenticator = served.app.state.services.authenticator
    check, checked = authenticator.bearer, 0

    async def fails_first(header: str) -> User:
        nonlocal checked
        checked += 1
        if checked == 1:
            raise Retryable("the keys cannot be fetched")
        found: User = await check(header)
        return found

    monkeypatch.setattr(authenticator, "bearer", fails_first)
    async with served.user("ada") as ada:
        assert (await ada.get("/exports/jobs")).status_code == 503
        assert (await ada.get("/exports/jobs")).status_code == 200
    assert checked == 2
    assert served.begun == 1


def test_waiting_calls_of_some_users_take_no_place_of_another_user() -> None:
    limit = ConcurrencyLimit("calls", of_user=5, of_all=10, turns=2)
    for user in ("ada", "bob"):
        for _ in range(5):
            limit.acquire(user)
    limit.acquire("eve")
    for user in ("ada", "bob"):
        for _ in range(5):
            limit.release(user)
    for number in range(9):
        limit.acquire(f"user-{number}")
    with pytest.raises(Problem):
        limit.acquire("one-more")
