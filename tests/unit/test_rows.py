"""A test of a whole table examines each row, and its failure names the row."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from tests.rows import each_row


def test_each_row_is_examined_with_the_fixtures_of_the_test() -> None:
    seen: list[tuple[int, str, str]] = []

    @each_row("number", [1, pytest.param(2, id="two")])
    @each_row(("a", "b"), [("x", "y"), pytest.param("z", "z")])
    def examine(number: int, a: str, b: str, seen: list[Any]) -> None:
        seen.append((number, a, b))

    assert list(inspect.signature(examine).parameters) == ["seen"]
    examine(seen=seen)
    assert seen == [(1, "x", "y"), (1, "z", "z"), (2, "x", "y"), (2, "z", "z")]


@each_row("value", ["a", "b"])
async def refuse(value: str) -> None:
    assert value == "a"


@each_row("value", ["a", "b"])
def refuse_at_once(value: str) -> None:
    with pytest.raises(ValueError, match="x"):
        int("x" if value == "a" else "1")


async def test_a_failure_of_a_coroutine_names_its_row() -> None:
    with pytest.raises(AssertionError) as caught:
        await refuse()
    assert caught.value.__notes__ == ["in the row 'b'"]


def test_a_failure_names_its_row() -> None:
    with pytest.raises(pytest.fail.Exception) as caught:
        refuse_at_once()
    assert caught.value.__notes__ == ["in the row 'b'"]


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(AssertionError, match="without rows"):
        each_row("value", [])


def test_a_row_with_a_mark_is_refused() -> None:
    with pytest.raises(AssertionError, match="marks"):
        each_row("value", [1, pytest.param(2, marks=pytest.mark.slow)])


@pytest.mark.parametrize("end", [pytest.skip, pytest.xfail])
def test_a_row_does_not_hide_the_rows_that_follow(end: Callable[[str], None]) -> None:
    @each_row("value", ["a", "b"])
    def examine(value: str) -> None:
        end("no reason")

    with pytest.raises(AssertionError, match="no reason, in the row 'a'"):
        examine()


def set_logs(level: int, found: list[Any]) -> None:
    root = logging.getLogger()
    found.append((root.level, root.handlers[:], structlog.get_config()))
    root.setLevel(level)
    root.addHandler(logging.NullHandler())
    structlog.configure(processors=[])


async def test_a_row_does_not_change_the_logs_of_the_next() -> None:
    found: list[Any] = []

    @each_row("level", [logging.CRITICAL, logging.DEBUG])
    async def set_later(level: int, found: list[Any]) -> None:
        set_logs(level, found)

    each_row("level", [logging.CRITICAL, logging.DEBUG])(set_logs)(found=found)
    await set_later(found=found)
    assert found == [found[0]] * 4
