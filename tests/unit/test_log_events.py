"""Each log event is a noun and a verb, and is in the table of docs/log_events.md with its levels."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from streaming_exporter.events import EventType
from tests.documents import DOCUMENTS

ROOT = Path(__file__).parents[2]
OTHER_NAMES = {"error.code", "error.type", "settings.env", *EventType}
"""Events of Kafka, fields of events and spans, and names of files, which look like log events."""
PACKAGES = ("api", "producers", "stream_app", "streaming_exporter")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")
NAMES = re.compile(rf"\b(?:repeat|{'|'.join(LEVELS)})\s*\(")
"""Calls that a module has if it writes a log. Files without them need not be parsed."""
LOGGERS = {"log", "bound"}
"""Names of loggers. ``bound`` is a logger with added fields."""

ANY = "*"
"""Placeholder for a computed part of an event."""


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield the level and the first argument of each call that writes a log line.

    ``repeat`` of stream_app/periodic.py writes two events, which begin with its argument ``name``.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="repeat"), args=[ast.Constant(value=str(name)), *_]):
                yield "warning", ast.Constant(f"{name}.failed")
                yield "error", ast.Constant(f"{name}.crashed")
            case ast.Call(func=ast.Attribute(value=logger, attr=level), args=[first, *_]) if level in LEVELS:
                named = isinstance(logger, ast.Name) and logger.id in LOGGERS
                if named or EVENT.fullmatch(event_of(first).replace(ANY, "x")):
                    yield level, first


def event_of(argument: ast.expr) -> str:
    """Return the event of an argument. A computed part becomes :data:`ANY`."""
    match argument:
        case ast.Constant(value=str(text)):
            return text.partition(":")[0]
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in parts)
    return ast.unparse(argument)


@cache
def written() -> dict[str, set[str]]:
    """Return every event in the code with its levels. ``exception`` is the level error."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path == ROOT / "stream_app" / "periodic.py":
                continue  # its callers name the events
            text = path.read_text("utf-8")
            for level, argument in calls(ast.parse(text)) if NAMES.search(text) else ():
                found[event_of(argument)].add("error" if level == "exception" else level)
    return found


@cache
def documented() -> dict[str, set[str]]:
    """Return every event of the table with its levels."""
    text = (ROOT / "docs" / "log_events.md").read_text("utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert rows == sorted(rows), "the events stand in the order of their names"
    assert len(rows) == len({row[0] for row in rows})
    assert all(meaning.strip() for *_, meaning in rows)
    return {event: set(levels.split(", ")) for event, levels, _ in rows}


@cache
def matches(pattern: str, event: str) -> bool:
    """Return whether the code can write this event of the table by this pattern."""
    return re.fullmatch(re.escape(pattern).replace(re.escape(ANY), "[a-z_]+"), event) is not None


def test_each_event_is_a_noun_and_a_verb() -> None:
    assert [event for event in written() if not EVENT.fullmatch(event.replace(ANY, "x"))] == []


def test_every_event_of_the_code_is_in_the_table_with_its_levels() -> None:
    table = documented()
    fixed = {event: levels for event, levels in written().items() if ANY not in event}
    assert {event: table.get(event) for event in fixed if not fixed[event] <= table.get(event, set())} == {}
    for pattern in written().keys() - fixed.keys():
        assert [event for event in table if matches(pattern, event)], pattern


def test_the_table_has_no_event_that_the_code_does_not_write() -> None:
    patterns = written()
    for event, levels in documented().items():
        by_code = set().union(*(patterns[pattern] for pattern in patterns if matches(pattern, event)))
        assert levels <= by_code, event


def test_every_module_that_writes_a_log_calls_its_logger_log() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text("utf-8")
            for name in re.findall(
                r"^(\w+)(?:: [\w.]+)? = (?:structlog\.get_logger|logging\.getLogger)\(", text, re.M
            ):
                assert name == "log", path


def test_events_that_documents_name_are_in_the_table() -> None:
    table = documented()
    nouns = {event.partition(".")[0] for event in table}
    documents = [path for path in DOCUMENTS if path.parent.name != "decisions"]
    for path in [*documents, *(ROOT / "observe").glob("*.yml")]:
        for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", path.read_text("utf-8")):
            if name.partition(".")[0] in nouns and name not in OTHER_NAMES:
                assert name in table, f"{path.name}: {name}"
