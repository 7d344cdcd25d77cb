"""Waiting for a condition: the only place where tests poll.

A test waits for a condition, never for a time. The limits below are long enough for a busy machine; they cost
no time if the condition is met. On a slow machine ``TEST_PATIENCE`` multiplies every limit, except the times
that the product promises.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar, cast, overload

T = TypeVar("T")

FIRST = 0.001
"""Seconds between the first two checks of a condition."""

FACTOR = float(os.environ.get("TEST_PATIENCE") or 1)
"""Factor of all limits, for slow machines."""

WITHIN = 60.0
"""Default limit of a wait in seconds."""

EVERY = 0.03
"""Seconds between two checks of a condition, after the first ones."""


def patient(seconds: float) -> float:
    """Return the limit of a wait in seconds, which is longer on a slow machine."""
    return seconds * FACTOR


def at_most(seconds: float) -> asyncio.Timeout:
    """As :func:`asyncio.timeout`, multiplied by :data:`FACTOR`. Not for times that the product promises."""
    return asyncio.timeout(patient(seconds))


def pauses(every: float) -> Iterator[float]:
    """Yield the seconds between checks of a condition, which is often met at once: at first shorter ones."""
    pause = min(FIRST, every)
    while True:
        yield pause
        pause = min(pause * 2, every)


def until(
    look: Callable[[], T | None],
    *,
    within: float = WITHIN,
    every: float = EVERY,
    ignoring: tuple[type[Exception], ...] = (),
    otherwise: Callable[[], object] | str = "",
) -> T:
    """Call ``look`` until it returns a true value; return that value.

    Args:
        within: limit in seconds, before :func:`patient`.
        every: seconds between two calls; see :func:`pauses`.
        ignoring: errors that count as "not yet".
        otherwise: text for the error, or a function that returns it.

    Raises:
        AssertionError: the condition was not met in time; the message has the last value.
    """
    limit = patient(within)
    deadline = time.monotonic() + limit
    waits = pauses(every)
    while True:
        seen: Any = None
        try:
            seen = look()
        except ignoring as error:
            seen = error
        else:
            if seen:
                return cast(T, seen)
        if time.monotonic() > deadline:
            raise _unmet(limit, seen, otherwise)
        time.sleep(next(waits))


@overload
async def until_async(
    look: Callable[[], Awaitable[T | None]],
    *,
    within: float = ...,
    every: float = ...,
    ignoring: tuple[type[Exception], ...] = ...,
    otherwise: Callable[[], object] | str = ...,
) -> T: ...


@overload
async def until_async(
    look: Callable[[], T | None],
    *,
    within: float = ...,
    every: float = ...,
    ignoring: tuple[type[Exception], ...] = ...,
    otherwise: Callable[[], object] | str = ...,
) -> T: ...


async def until_async(
    look: Callable[[], Any],
    *,
    within: float = WITHIN,
    every: float = EVERY,
    ignoring: tuple[type[Exception], ...] = (),
    otherwise: Callable[[], object] | str = "",
) -> Any:
    """As :func:`until`, without blocking the event loop. ``look`` is a function or a coroutine function.

    Raises:
        AssertionError: the condition was not met in time; the message has the last value.
    """
    limit = patient(within)
    deadline = time.monotonic() + limit
    waits = pauses(every)
    while True:
        seen: Any = None
        try:
            seen = look()
            if inspect.isawaitable(seen):
                seen = await seen
        except ignoring as error:
            seen = error
        else:
            if seen:
                return seen
        if time.monotonic() > deadline:
            raise _unmet(limit, seen, otherwise)
        await asyncio.sleep(next(waits))


def first_below(limit: float, measure: Callable[[], float], *, tries: int = 3) -> float:
    """Return the first value of ``measure`` below ``limit``.

    For measured times: other programs on the machine only make a time longer. So one short time proves that
    the product is quick, and only a product that is slow is slow in every try.

    ``measure`` must return a plain time. A quotient or a difference of two times gets smaller if the second
    one is measured in a busy moment: compare the shortest times instead.

    Raises:
        AssertionError: all values are too large; the message has them.
    """
    values: list[float] = []
    while len(values) < tries:
        values.append(measure())
        if values[-1] < limit:
            return values[-1]
    raise AssertionError(f"not below {limit:g} in any try: {values}")


def _unmet(limit: float, seen: object, otherwise: Callable[[], object] | str) -> AssertionError:
    more = otherwise() if callable(otherwise) else otherwise
    return AssertionError(f"not so after {limit:g} s; seen last: {seen!r:.2000}. {more}".rstrip(". "))
