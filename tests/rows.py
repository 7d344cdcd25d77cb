"""Tables of which one test examines all rows: a row takes less time than a test of its own."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from types import TracebackType
from typing import Any

import pytest

from tests.process_state import same_logs

_NAMED = type(pytest.param())


class Row:
    """Adds its values to an error that is raised within, so that the failure names the row.

    A skip or an expected failure is an error too: it would end the test and hide the rows that follow.
    """

    def __init__(self, *values: object) -> None:
        self._values = values

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        note = f"in the row {', '.join(map(repr, self._values))}"
        if isinstance(error, pytest.skip.Exception | pytest.xfail.Exception):
            raise AssertionError(f"a row cannot be skipped: {error}, {note}") from error
        error.add_note(note)


def each_row(
    names: str | Sequence[str], rows: Iterable[Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator like ``pytest.mark.parametrize``, with which one test examines all rows.

    The fixtures of the test are the same for all of them. Logs are as each row has found them.
    """
    known = [names] if isinstance(names, str) else list(names)

    def values(row: Any) -> tuple[Any, ...]:
        if isinstance(row, _NAMED):
            assert not row.marks, "a row cannot have marks"
            return tuple(row.values)
        return (row,) if isinstance(names, str) else tuple(row)

    table = [values(row) for row in rows]
    assert table, "a test without rows proves nothing"

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(test):

            @wraps(test)
            async def examine(**fixtures: Any) -> None:
                for row in table:
                    with Row(*row), same_logs():
                        await test(**fixtures, **dict(zip(known, row, strict=True)))
        else:

            @wraps(test)
            def examine(**fixtures: Any) -> None:
                for row in table:
                    with Row(*row), same_logs():
                        test(**fixtures, **dict(zip(known, row, strict=True)))

        signature = inspect.signature(test)
        left = [value for name, value in signature.parameters.items() if name not in known]
        examine.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return examine

    return decorate
