"""A test of a whole table examines each row, and its failure names the row."""

import inspect
from typing import Any

import pytest

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
