"""Runs a coroutine without a task of its own until it first waits."""

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a coroutine that has ended."""

    value: Any


def run_until_waiting(work: Coroutine[Any, Any, Any]) -> Finished | Coroutine[Any, Any, Any]:
    """Run a coroutine until it ends or waits.

    Returns:
        Its result, or a coroutine that continues it.

    An error of the coroutine is raised.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as ended:
        return Finished(ended.value)
    return _continue(work, waits_for)


async def _continue(begun: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    return await _rest(begun, waits_for)


@coroutine
def _rest(begun: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Pass on what ``begun`` waits for, and the result or the error of each wait to ``begun``."""
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                raise
            except BaseException as error:
                waits_for = begun.throw(error)
            else:
                waits_for = begun.send(value)
    except StopIteration as ended:
        return ended.value
    finally:
        begun.close()
