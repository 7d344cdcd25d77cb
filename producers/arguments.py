"""From what is typed to what an event carries. Pure."""

import json
import re
from collections.abc import Iterable
from typing import Any

from streaming_exporter.errors import UsageError

OPERATORS = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "prefix", "contains", "is_null")
LISTS = ("in", "not_in")
TEXTUAL = ("prefix", "contains")
SIGNS = {">=": "gte", "<=": "lte", "!=": "ne", "=": "eq", ">": "gt", "<": "lt"}
"""Operators as people write them."""
WORDS = {"true": True, "false": False, "null": None}


def parse_filters(pairs: Iterable[str], document: str | None = None) -> dict[str, Any]:
    """Filters as they are typed, on top of a JSON object of filters.

    ``column=value``, with any of :data:`SIGNS` in place of ``=``, or ``column:op=value``. The first sign
    counts: a column with one in its name goes into the object. Blanks before a sign are left out, and then
    those after it too.

    Raises:
        UsageError: a pair or the object cannot be read.
    """
    filters: dict[str, Any] = _object(document, "--filters") if document is not None else {}
    for pair in pairs:
        target, sign, text = _parts(pair)
        column, colon, operator = target.rpartition(":")
        if not colon:
            column, operator = target, SIGNS.get(sign, "")
        elif sign != "=":
            column = ""
        if not column or not operator:
            raise UsageError(
                f"--filter {pair!r}: expected column=value or column:op=value; "
                f"also allowed: {', '.join(SIGNS)}"
            )
        if operator not in OPERATORS:
            raise UsageError(
                f"--filter {pair!r}: no operator {operator!r}; allowed: {', '.join(OPERATORS)} "
                "(a column with a colon in its name goes into --filters)"
            )
        tests = filters.setdefault(column, {})
        if not isinstance(tests, dict):
            tests = filters[column] = {"eq": tests}
        if operator in tests:
            raise UsageError(f"--filter {pair!r}: {operator} on {column} is given twice; use {column}:in=a,b")
        tests[operator] = _value(text, operator)
    return {column: _shortest(tests) for column, tests in filters.items()}


def parse_options(pairs: Iterable[str], compression: str | None = None) -> dict[str, Any]:
    """``key=value`` pairs; true, false and null are what they say, all else is text.

    Raises:
        UsageError: a pair has no equals sign.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name:
            raise UsageError(f"--option {pair!r}: expected key=value")
        options[name] = WORDS.get(text, text)
    if compression is not None:
        options["compression"] = compression
    return options


def parse_columns(texts: Iterable[str]) -> list[str] | None:
    """Names from comma-separated lists."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    return names or None


def _parts(pair: str) -> tuple[str, str, str]:
    """What stands before the first sign, the sign, and what stands after it."""
    found = re.search("|".join(map(re.escape, SIGNS)), pair)
    if found is None:
        return pair, "", ""
    target, text = pair[: found.start()], pair[found.end() :]
    return (target.strip(), found[0], text.strip()) if target != target.rstrip() else (target, found[0], text)


def _value(text: str, operator: str) -> Any:
    """Numbers and times stay text: the service reads them as the column's type wants."""
    if text in WORDS and operator not in TEXTUAL:
        return WORDS[text]
    if text[:1] in ('"', "[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return [part.strip() for part in text.split(",")] if operator in LISTS else text


def _object(document: str, option: str) -> dict[str, Any]:
    try:
        content = json.loads(document)
    except ValueError as error:
        raise UsageError(f"{option} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{option} must be a JSON object such as " + '{"kind": "proof"}')
    return content


def _shortest(tests: Any) -> Any:
    plain = isinstance(tests, dict) and set(tests) == {"eq"} and not isinstance(tests["eq"], dict)
    return tests["eq"] if plain else tests
