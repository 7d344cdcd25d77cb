"""Mutants: each is a valid program that differs from the original."""

import ast

from tests.mutations.__main__ import CORE, ROOT
from tests.mutations.mutants import mutants

SOURCE = '''\
"""Grüße: columns are counted in bytes."""


def clipped(value: int, most: int | None = 3) -> str:
    if most is not None and value > most:
        raise ValueError(f"ä {value + 1}")
    return "ü" + str(value)
'''


def test_the_changes_of_a_module() -> None:
    found = [(mutant.line, mutant.what.rpartition(" -> ")[2].splitlines()[0]) for mutant in mutants(SOURCE)]
    assert found == [
        (4, "4"),
        (5, "if not (most is not None and value > most):"),
        (5, "((most is not None) or (value > most))"),
        (5, "(most is None)"),
        (5, "(value >= most)"),
        (6, "pass"),
        (7, "return None"),
    ]


def test_each_mutant_is_another_program() -> None:
    found = {ast.dump(ast.parse(mutant.source)) for mutant in mutants(SOURCE)}
    assert len(found) == len(mutants(SOURCE))
    assert ast.dump(ast.parse(SOURCE)) not in found


def test_every_module_that_is_changed_has_tests() -> None:
    for module, tests in CORE.items():
        assert (ROOT / module).is_file()
        assert [path for path in tests if not (ROOT / path).exists()] == []
