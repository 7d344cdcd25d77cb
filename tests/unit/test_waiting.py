"""Waits in tests return the value, or fail with the last value."""

import asyncio
from itertools import islice

import pytest

from tests import waiting
from tests.waiting import at_most, patient, pauses, until, until_async


def test_it_returns_the_first_true_value() -> None:
    seen = iter([None, 0, "", "here", "later"])
    assert until(lambda: next(seen), every=0) == "here"


async def test_it_accepts_functions_and_coroutines() -> None:
    seen = iter([0, 1, 0, 2])

    async def look() -> int:
        return next(seen)

    assert await until_async(look, every=0) == 1
    assert await until_async(lambda: next(seen), every=0) == 2


@pytest.mark.parametrize(
    ("every", "expected"),
    [(0.03, [0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.03]), (0.0005, [0.0005] * 7), (0, [0] * 7)],
)
def test_the_first_checks_follow_each_other_closely(every: float, expected: list[float]) -> None:
    assert list(islice(pauses(every), 7)) == expected


def test_only_expected_errors_are_ignored() -> None:
    answers = iter((OSError("away"), "there"))

    def look() -> object:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert until(look, every=0, ignoring=(OSError,)) == "there"
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 // 0, ignoring=(OSError,))


async def test_a_failed_wait_has_the_last_value() -> None:
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


def test_the_limit_of_a_test_grows_with_its_waits(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    usual = float(request.config.getini("timeout"))
    assert (float(marker.args[0]) if marker else usual) == usual * waiting.FACTOR


@pytest.mark.timeout(20)
def test_a_separate_limit_grows_too(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("timeout").args == (20 * waiting.FACTOR,)
