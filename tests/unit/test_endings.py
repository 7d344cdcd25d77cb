"""What a group of tests shares ends with the group, whatever fails."""

from types import SimpleNamespace
from typing import cast

import pytest

from tests import conftest, endings


@pytest.fixture
def config() -> pytest.Config:
    return cast(pytest.Config, SimpleNamespace(stash=pytest.Stash()))


def test_groups_of_other_tests_are_closed_and_the_latest_first(config: pytest.Config) -> None:
    closed: list[str] = []
    for group in ("tests/a", "tests/b", "tests/c"):
        endings.after_last_test(config, group).callback(closed.append, group)
    endings.close(config, "tests/b/test_b.py::test")
    assert closed == ["tests/c", "tests/a"]
    endings.close(config)
    assert closed == ["tests/c", "tests/a", "tests/b"]


def test_an_error_of_one_group_leaves_no_other_open(config: pytest.Config) -> None:
    closed: list[str] = []
    endings.after_last_test(config, "tests/a").callback(closed.append, "tests/a")
    endings.after_last_test(config, "tests/b").callback(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        endings.close(config)
    assert closed == ["tests/a"]


def test_groups_are_closed_after_a_teardown_that_fails(config: pytest.Config) -> None:
    closed: list[str] = []
    endings.after_last_test(config, "tests/a").callback(closed.append, "tests/a")
    item = cast(pytest.Item, SimpleNamespace(config=config))
    teardown = conftest.pytest_runtest_teardown(item, None)
    next(teardown)
    with pytest.raises(RuntimeError, match="of a fixture"):
        teardown.throw(RuntimeError("of a fixture"))
    assert closed == ["tests/a"]
