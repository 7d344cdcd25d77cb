"""Retries after outages: repeat a call until it succeeds, and the delay before the next try."""

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import update_wrapper
from typing import ParamSpec, TypeVar

import stamina

from streaming_exporter.errors import NeedsOperator, Outage, Retryable

P = ParamSpec("P")
T = TypeVar("T")

_retrying = stamina.AsyncRetryingCaller(attempts=None, timeout=None, wait_initial=0.2, wait_max=5).on(
    Retryable
)


async def retry_until_possible(
    function: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs
) -> T:
    """Call ``function``; repeat the call while it raises :class:`Retryable`. Return its result.

    The first call is made without the library, which takes as long as the quick calls of a small job.
    """
    try:
        return await function(*arguments, **named)
    except Retryable as error:
        failed = iter((error,))

    async def again() -> T:
        for error in failed:  # the library counts the first call too, and waits after it
            raise error
        return await function(*arguments, **named)

    return await _retrying(update_wrapper(again, function))


def retry_outages(seconds: float) -> stamina.BoundAsyncRetryingCaller:
    """Return a caller that repeats a call for ``seconds`` while a part of the system is away.

    It does not repeat a call that waits for an operator: that has to be reported.
    """
    caller = stamina.AsyncRetryingCaller(attempts=None, timeout=seconds, wait_initial=0.2, wait_max=5)
    return caller.on(lambda error: isinstance(error, Outage) and not isinstance(error, NeedsOperator))


JITTER = random.Random()  # noqa: S311 - no secret
"""The random generator of all jitter. Background loops use it and not the global one, which tests seed."""


def retry_delay(tries: int, *, first: timedelta, longest: timedelta) -> timedelta:
    """Return the delay before the next try: exponential, with jitter.

    The delay is chosen at random between half of its value and the full value, so that jobs that failed
    together are not retried together.

    Args:
        tries: how many tries failed before the last one: 0 after the first failure.
        first: the longest delay after the first failure. It doubles with every further failure.
        longest: the limit of the delay.
    """
    delay = min(first * (1 << max(0, min(tries, 20))), longest)
    return delay * JITTER.uniform(0.5, 1)
