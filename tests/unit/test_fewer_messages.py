"""Processes of pytest-xdist send every outcome and output, and nothing about what has passed silently."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.fewer_messages import outcomes_only
from tests.rows import each_row

ROOT = Path(__file__).parents[2]

When = Literal["setup", "call", "teardown"]
Outcome = Literal["passed", "failed", "skipped"]


class Sender:
    """Stands in for xdist's own sender."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        self.sent.append(report)


@each_row("when", ["setup", "call", "teardown"])
@each_row("outcome", ["passed", "failed", "skipped"])
@each_row("output", [[], [("Captured stdout setup", "x")]])
def test_only_silent_parts_that_pass_are_not_sent(
    when: When, outcome: Outcome, output: list[tuple[str, str]]
) -> None:
    report = pytest.TestReport("a", ("a", 1, "a"), {}, outcome, None, when, output)
    sender: Any = outcomes_only(Sender)()
    sender.pytest_runtest_logreport(report)
    assert sender.sent == ([] if when != "call" and outcome == "passed" and not output else [report])


TESTS = """
import os, pytest
@pytest.fixture
def broken(): raise LookupError("set up")
@pytest.fixture
def leaves():
    yield
    raise LookupError("left")
def test_passes(): pass
def test_fails(): print("printed"); assert 1 == 2
def test_is_not_set_up(broken): pass
def test_leaves(leaves): pass
@pytest.mark.skip(reason="why not")
def test_skipped(): pass
@pytest.mark.xfail
def test_expected(): raise LookupError
"""
CONFTEST = """
from tests.fewer_messages import send_outcomes_only
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        send_outcomes_only(config)
"""
SENT = "1 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors"


def run(folder: Path, tests: str, *arguments: str) -> str:
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-rs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


EVERYWHERE = (SENT, "assert 1 == 2", "printed", "LookupError: set up", "LookupError: left", "why not")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "further"),
    [
        (["--tb=short"], ()),
        (["--durations=0", "--durations-min=0"], ("s setup", "s teardown")),
        (["-v"], ("PASSED", "test_it.py::test_passes")),
    ],
)
def test_all_outcomes_and_outputs_arrive(
    tmp_path: Path, options: list[str], further: tuple[str, ...]
) -> None:
    shown = run(tmp_path, TESTS, *options)
    for part in (*EVERYWHERE, *further):
        assert part in shown, shown


@pytest.mark.slow
def test_the_test_in_which_a_process_ends_is_named(tmp_path: Path) -> None:
    tests = "import os\ndef test_before(): pass\ndef test_ends(): os._exit(1)\ndef test_after(): pass\n"
    shown = run(tmp_path, tests, "-p", "no:randomly")
    assert "crashed while running 'test_it.py::test_ends'" in shown
    assert "1 failed, 2 passed" in shown
