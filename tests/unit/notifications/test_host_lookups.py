"""The lookups of hosts that users name take no threads of other work, and those of one user are few."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stream_app.notifications import host_lookups
from stream_app.notifications.channel import DeliveryFailed
from stream_app.notifications.host_lookups import LOOKUPS, USER_LOOKUPS, HostLookups
from stream_app.notifications.public_post import NoAnswer, PublicPost
from stream_app.settings import Settings
from tests.waiting import at_most, patient, until_async

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


class Resolver:
    """A resolver that does not answer for names that begin with "slow", until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[object] = []

    def getaddrinfo(self, host: object, *_: object, **__: object) -> Any:
        self.asked.append(host)
        if str(host).startswith("slow"):
            self.let_go.wait()
        if str(host).endswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return FOUND


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    found = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.let_go.set()


async def test_names_whose_servers_do_not_answer_delay_no_other_work(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls have ended, but not their lookups. Other work has its threads, also for lookups."""
    monkeypatch.setattr(host_lookups, "LOOKUPS", 100)
    post = PublicPost(Settings(_env_file=None, delivery_timeout_seconds=0.2))
    calls = [
        post.post(f"https://slow{number}.example.com/", b"", {}, user=f"user-{number}")
        for number in range(60)
    ]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in ended} == {NoAnswer}
    await until_async(lambda: len(resolver.asked) == 60)
    async with at_most(20):
        assert await asyncio.to_thread(lambda: 7) == 7
        assert await asyncio.get_running_loop().getaddrinfo("database", 5432) == FOUND


async def test_lookups_whose_caller_has_given_up_count_for_their_user(resolver: Resolver) -> None:
    lookups = HostLookups()
    waiting = [
        asyncio.create_task(lookups.find(f"slow{number}", 443, user="eve")) for number in range(USER_LOOKUPS)
    ]
    await until_async(lambda: len(resolver.asked) == USER_LOOKUPS)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    with pytest.raises(DeliveryFailed) as refused:
        await lookups.find("fast", 443, user="eve")
    assert not refused.value.host_called, "nothing is known of the host"
    assert not refused.value.host_unreachable
    assert await lookups.find("fast", 443, user="ada") == FOUND
    resolver.let_go.set()
    await until_async(lambda: not lookups.running)
    assert await lookups.find("fast", 443, user="eve") == FOUND


async def test_all_users_together_have_a_limit(resolver: Resolver) -> None:
    lookups = HostLookups()
    waiting = [
        asyncio.create_task(lookups.find(f"slow{number}", 443, user=f"user-{number}"))
        for number in range(LOOKUPS)
    ]
    await until_async(lambda: len(resolver.asked) == LOOKUPS)
    with pytest.raises(DeliveryFailed, match="being looked up"):
        await lookups.find("fast", 443, user="ada")
    resolver.let_go.set()
    assert await asyncio.gather(*waiting) == [FOUND] * LOOKUPS
    assert await lookups.find("fast", 443, user="ada") == FOUND


async def test_a_name_without_an_address_is_an_error_and_does_not_count(resolver: Resolver) -> None:
    lookups = HostLookups()
    for _ in range(2 * USER_LOOKUPS):
        with pytest.raises(socket.gaierror):
            await lookups.find("unknown", 443, user="ada")
    assert not lookups.running


async def test_lookups_without_a_thread_do_not_count(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = HostLookups()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2 * USER_LOOKUPS):
            with pytest.raises(DeliveryFailed, match="being looked up") as refused:
                await lookups.find("fast", 443, user="ada")
            assert not refused.value.host_called
    assert not lookups.running
    assert await lookups.find("fast", 443, user="ada") == FOUND


def test_the_end_of_a_process_waits_for_no_lookup(resolver: Resolver) -> None:
    """The loop is closed when the resolver answers, and the thread does not keep the process."""

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(HostLookups().find("slow", 443, user="ada"), 0.1)

    before = set(threading.enumerate())
    asyncio.run(ask())
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    resolver.let_go.set()
    thread.join(patient(60))
    assert not thread.is_alive()
