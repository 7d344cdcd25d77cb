"""Waiting for a condition: the only place where tests poll.

A test waits for what it needs, never for a time. The limits below cost nothing where all is well; they say
when a condition counts as not met, on a machine that does other things as well.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast, overload

T = TypeVar("T")

WITHIN = 60.0
"""Seconds until a condition counts as not met, where the caller does not say."""

EVERY = 0.03
"""Seconds between two looks."""


def until(
    look: Callable[[], T | None],
    *,
    within: float = WITHIN,
    every: float = EVERY,
    ignoring: tuple[type[Exception], ...] = (),
    otherwise: Callable[[], object] | str = "",
) -> T:
    """Call ``look`` until what it returns is true, and return that.

    Args:
        within: seconds.
        every: seconds between two calls.
        ignoring: errors that count as "not yet".
        otherwise: what the error adds, as text or as a function that is called then.

    Raises:
        AssertionError: it did not come about in time; the message has what was seen last.
    """
    deadline = time.monotonic() + within
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
            raise _unmet(within, seen, otherwise)
        time.sleep(every)


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
    """As :func:`until` while the event loop runs on; ``look`` is a function or a coroutine function.

    Raises:
        AssertionError: it did not come about in time; the message has what was seen last.
    """
    deadline = time.monotonic() + within
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
            raise _unmet(within, seen, otherwise)
        await asyncio.sleep(every)


def _unmet(within: float, seen: object, otherwise: Callable[[], object] | str) -> AssertionError:
    more = otherwise() if callable(otherwise) else otherwise
    return AssertionError(f"not so after {within:g} s; seen last: {seen!r:.2000}. {more}".rstrip(". "))
