"""Each warning and each problem of the doctor has its texts in all languages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.doctor.findings import FindingFactory, State
from stream_app.messages.catalogue import DEFAULT, LANGUAGES, PLACEHOLDER, Message, messages, page_messages

ROOT = Path(__file__).parents[3]
MODULES = [*sorted((ROOT / "stream_app/doctor").glob("*.py")), ROOT / "api/operations/doctor.py"]
TREES = {path.name: ast.parse(path.read_text()) for path in MODULES}

CODES = sorted({key.split(".")[1] for key in messages(DEFAULT) if key.startswith("findings.")})
FACTORIES = ("problem", "warning", "problem_if", "create")
"""Names under which the doctor calls what makes a warning or a problem."""


def findings() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call that makes a warning or a problem, with its place."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in FACTORIES:
                yield f"{name}:{node.lineno}", node


def constants(node: ast.AST) -> set[str]:
    """Return the texts that an expression can have, as far as they are written in it."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def has_condition(call: ast.Call) -> bool:
    return ast.unparse(call.func).endswith("problem_if")


def codes_of(call: ast.Call) -> set[str]:
    return constants(call.args[3 if has_condition(call) else 1])


def checks_of(call: ast.Call) -> set[str]:
    return constants(call.args[1 if has_condition(call) else 0])


def forms(message: Message) -> list[str]:
    return [message] if isinstance(message, str) else list(message.values())


def test_every_finding_has_texts() -> None:
    """The page shows them in the language of its user."""
    calls = list(findings())
    assert len(calls) > 50
    unknown = {place: codes_of(call) - set(CODES) for place, call in calls}
    assert not {place: codes for place, codes in unknown.items() if codes}


def test_every_text_belongs_to_a_finding() -> None:
    written = {
        node.value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(CODES) <= written


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {DEFAULT}))
@pytest.mark.parametrize("part", ["what", "advice"])
def test_the_texts_are_translated(language: str, part: str) -> None:
    same = [
        code
        for code in CODES
        if messages(language)[f"findings.{code}.{part}"] == messages(DEFAULT)[f"findings.{code}.{part}"]
    ]
    assert not same


def test_a_finding_has_the_values_of_its_texts() -> None:
    wrong: dict[str, set[str | None]] = {}
    for place, call in findings():
        given = {keyword.arg for keyword in call.keywords}
        for code in codes_of(call):
            parts = [messages(DEFAULT)[f"findings.{code}.{part}"] for part in ("what", "advice")]
            named = {name for part in parts for form in forms(part) for name in PLACEHOLDER.findall(form)}
            if None not in given and named != given:
                wrong[place] = {*named} ^ given
    assert wrong == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_checks_have_names_on_the_page(language: str) -> None:
    """Those that are not names of settings, datasets, destinations or plug-ins."""
    own = page_messages(language, "operations")
    checks = {name for _, call in findings() for name in checks_of(call)}
    settings = {name for name in checks if name.startswith("EXPORTER_")}
    assert {"leases", "lag"} <= checks - settings
    assert {f"page.operations.checks.{name.replace(' ', '_')}" for name in checks - settings} <= own.keys()


def test_a_finding_names_its_texts_and_their_values() -> None:
    finding = FindingFactory("kafka").problem("lag", "unread_messages", count=1, places="t[0]")
    assert (finding.state, finding.code) == (State.PROBLEM, "unread_messages")
    assert finding.values == {"count": 1, "places": "t[0]"}
    assert finding.what == "1 message is not read in t[0]"
    assert finding.advice.startswith("find in the workers' logs")
    with pytest.raises(KeyError, match="no_such_code"):
        FindingFactory("kafka").warning("lag", "no_such_code")
