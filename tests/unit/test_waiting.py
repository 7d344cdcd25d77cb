"""Waiting in tests returns what was waited for, or says what was seen last."""

import asyncio

import pytest

from tests import waiting
from tests.waiting import at_most, patient, until, until_async


def test_it_returns_what_was_seen_as_soon_as_it_is_true() -> None:
    seen = iter([None, 0, "", "here", "later"])
    assert until(lambda: next(seen), every=0) == "here"


async def test_it_takes_functions_and_coroutines() -> None:
    seen = iter([0, 1, 0, 2])

    async def look() -> int:
        return next(seen)

    assert await until_async(look, every=0) == 1
    assert await until_async(lambda: next(seen), every=0) == 2


def test_errors_that_are_expected_are_waited_out_and_no_others() -> None:
    answers = iter((OSError("away"), "there"))

    def look() -> object:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert until(look, every=0, ignoring=(OSError,)) == "there"
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 // 0, ignoring=(OSError,))


async def test_what_does_not_come_about_is_told_with_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match=r"not so after 0 s; seen last: \[\]\. the log"):
        until(lambda: [], within=0, otherwise=lambda: "the log")
    with pytest.raises(AssertionError, match="not so after 0 s; seen last: 0"):
        await until_async(lambda: 0, within=0)


async def test_a_slow_machine_gets_more_time_for_every_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FACTOR", 4)
    assert patient(30) == 120
    async with at_most(30) as limit:
        assert (limit.when() or 0) - asyncio.get_running_loop().time() > 100
    with pytest.raises(AssertionError, match=r"not so after 0\.04 s"):
        until(lambda: False, within=0.01, every=0)
    with pytest.raises(AssertionError, match=r"not so after 0\.04 s"):
        await until_async(lambda: False, within=0.01, every=0)


def test_a_test_has_more_time_where_its_waits_have(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    usual = float(request.config.getini("timeout"))
    assert (float(marker.args[0]) if marker else usual) == usual * waiting.FACTOR


@pytest.mark.timeout(20)
def test_a_limit_of_its_own_grows_too(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("timeout").args == (20 * waiting.FACTOR,)
