"""Tests with the same id: pytest-xdist runs one of them only."""

from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.nodeid import NodeId

from tests.conftest import make_ids_distinct


class Item(SimpleNamespace):
    """A test with the id and the name that its library gives it."""

    def __init__(self, node: str, name: str) -> None:
        super().__init__(_id=NodeId.parse(node), name=name)

    @property
    def nodeid(self) -> str:
        return str(self._id)


def test_ids_follow_the_names() -> None:
    items: list[Any] = [Item("a/t.py::C::f", f"f[GET /{word}]") for word in ("jobs", "jobs::x")]
    items.append(Item("a/t.py::C::g[1]", "g[1]"))
    make_ids_distinct(items)
    assert [item.nodeid for item in items] == [
        "a/t.py::C::f[GET /jobs]",
        "a/t.py::C::f[GET /jobs::x]",
        "a/t.py::C::g[1]",
    ]


def test_two_tests_with_one_name_are_refused() -> None:
    items: list[Any] = [Item("t.py::f[1]", "f[1]"), Item("t.py::f[1]", "f[1]")]
    with pytest.raises(pytest.UsageError, match=r"t\.py::f\[1\]"):
        make_ids_distinct(items)
