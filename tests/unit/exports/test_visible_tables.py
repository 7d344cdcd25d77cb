"""No part of the service uses the table of a dataset without the rights of a caller."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
OWN = {
    "stream_app/doctor/datasets_file/check_bundles.py",
    "stream_app/doctor/datasets_file/check.py",
    "stream_app/exports/tables/catalog.py",
    "stream_app/exports/tables/rights.py",
}
"""The catalog itself, the module that adds the rights, and the checks of the datasets file for operators."""


def uses(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield the calls that get a table from a catalog."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).lower()
            if node.func.attr in ("use", "table") and owner.endswith("catalog"):
                yield node


def test_every_use_of_a_table_goes_through_the_rights() -> None:
    found = {}
    for folder in ("api", "producers", "stream_app"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text("utf-8")
            if "catalog" not in text.lower():
                continue  # most files, which need not be parsed
            lines = [node.lineno for node in uses(ast.parse(text))]
            if lines and name not in OWN:
                found[name] = lines
    assert found == {}


def test_the_search_finds_uses() -> None:
    code = "async def f():\n await services.catalog.use(d, w)\n await catalog.table(d)\n"
    assert [node.lineno for node in uses(ast.parse(code))] == [2, 3]
