"""Waiting in tests returns what was waited for, or says what was seen last."""

import pytest

from tests.waiting import until, until_async


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
