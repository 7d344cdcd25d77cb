"""Every limit of real time in a test is longer on a slow machine: :func:`tests.waiting.patient`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PLACES = {"timeout": 0, "wait": 0, "join": 0, "result": 0, "wait_for": 1, "wait_until": 1}
"""Functions, and where their limit is among the arguments without a name."""

SHORTEST = 1.0
"""Shorter limits in seconds are those of what must not happen, and pauses between two looks."""

CLOCKS = {"monotonic", "perf_counter"}

CALLS = {"get", "post", "put", "patch", "delete", "head", "request", "stream", "Client", "AsyncClient"}
"""What connects, in httpx2. Its own time-out is 5 s for each step."""

CANDIDATES = re.compile(
    r"(timeout=|\b(timeout|wait|join|result)\()\s*\d"
    r"|\bwait_(for|until)\([^\n]*(\n[^\n]*){0,3}?,\s*\d"
    r"|(monotonic|perf_counter)\(\)[^<+]{0,60}[<+]=?\s*\d"
    r"|httpx2\.(get|post|put|patch|delete|head|request|stream|Client|AsyncClient)\((?![^)]*(timeout|transport)=)"
)
"""What a file contains in which a limit can be. To parse all files would take seconds."""


def hasty(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions whose limit is the same on every machine."""
    not_expected = {
        node.operand
        for node in ast.walk(tree)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in not_expected:
            if any(map(_is_long, _limits(node))) or _has_default_limit(node):
                yield node
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            if _is_long(node.right) and _reads_clock(node.left):
                yield node
        elif isinstance(node, ast.Assert):
            comparisons = (part for part in ast.walk(node.test) if isinstance(part, ast.Compare))
            yield from filter(_is_below_a_number, comparisons)


def _limits(call: ast.Call) -> Iterator[ast.expr]:
    if ast.unparse(call.func) != "pytest.mark.timeout":  # it is multiplied when the tests are collected
        yield from (keyword.value for keyword in call.keywords if keyword.arg == "timeout")
        place = PLACES.get(_name(call.func), len(call.args))
        yield from call.args[place : place + 1]


def _name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _is_long(node: ast.expr) -> bool:
    return _is_number(node) and ast.literal_eval(node) >= SHORTEST


def _has_default_limit(call: ast.Call) -> bool:
    module, _, name = ast.unparse(call.func).rpartition(".")
    is_bounded = any(keyword.arg in ("timeout", "transport") for keyword in call.keywords)
    return module == "httpx2" and name in CALLS and not is_bounded


def _reads_clock(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) and _name(part.func) in CLOCKS for part in ast.walk(node))


def _is_below_a_number(node: ast.Compare) -> bool:
    parts = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
    return any(
        isinstance(sign, (ast.Lt, ast.LtE)) and _reads_clock(left) and _is_number(right)
        for left, sign, right in parts
    )


def test_every_limit_of_real_time_is_longer_on_a_slow_machine() -> None:
    """A time that the product promises is measured again if it was too long: ``first_below``."""
    found = [
        f"{path.relative_to(TESTS)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted(TESTS.rglob("*.py"))
        for text in [path.read_text("utf-8")]
        if CANDIDATES.search(text)
        for node in hasty(ast.parse(text))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "asyncio.timeout(2)",
        "await asyncio.wait_for(ended.wait(), 5)",
        "assert ready.wait(20)",
        "thread.join(timeout=20.0)",
        "Publisher(settings, timeout=2)",
        "ends = time.monotonic() + 30",
        "assert time.monotonic() - began < 4",
        "assert 0.3 < (time.perf_counter() - began) / 5 < 0.5",
        "httpx2.get(url)",
        "httpx2.AsyncClient(headers={})",
    ],
)
def test_a_limit_that_is_the_same_everywhere_is_found(line: str) -> None:
    assert CANDIDATES.search(line)
    assert list(hasty(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "asyncio.timeout(patient(2))",
        "at_most(2)",
        "assert not ready.wait(1.5)",
        "await asyncio.wait_for(ended.wait(), 0.3)",
        "pytest.mark.timeout(20)",
        "assert time.monotonic() - began < patient(4)",
        "assert time.monotonic() - began > 4",
        "', '.join(names)",
        "httpx2.AsyncClient(transport=transport)",
        "httpx2.get(url, timeout=patient(WITHIN))",
        "client.get(url)",
    ],
)
def test_other_lines_are_not_found(line: str) -> None:
    assert not list(hasty(ast.parse(line)))
