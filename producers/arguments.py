"""Parses the arguments of commands into the fields of a request. Pure."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stream_app.datasets.arguments import parse_claims as parse_claims
from stream_app.datasets.arguments import parse_parameters as parse_parameters
from streaming_exporter.errors import UsageError
from streaming_exporter.exact_numbers import exact_number
from streaming_exporter.unique_names import RepeatedName, unique_names

OPERATORS = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "prefix", "contains", "is_null")
LISTS = ("in", "not_in")
TEXTUAL = ("prefix", "contains")
SIGNS = {">=": "gte", "<=": "lte", "!=": "ne", "<>": "ne", "==": "eq", "=": "eq", ">": "gt", "<": "lt"}
"""Signs that stand for operators. A sign is before each other sign that it begins with."""
_NO_VALUE = re.compile(r"\s*(?!<[^<>]+>$)[=<>!~]")
"""What cannot follow a sign, because the whole is a sign of another language, such as ``=>``. Text in angle
brackets can."""
WORDS = {"true": True, "false": False, "null": None}


def parse_filters(pairs: Iterable[str], document: str | None = None) -> dict[str, Any]:
    """Parse filters, and add them to the filters of a JSON object.

    A filter is ``column=value``, with any of :data:`SIGNS` in place of ``=``, or ``column:op=value``. The
    first sign separates the parts, so a column with a sign in its name must be in the JSON object. If there
    are blanks before the sign, blanks on both sides of it are removed. A value that begins with a character
    of a sign needs ``column:op=value``.

    Raises:
        UsageError: a filter or the JSON object is invalid.
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
                f"allowed signs: {', '.join(SIGNS)}"
            )
        if not colon and (found := _NO_VALUE.match(text)):
            raise UsageError(
                f"--filter {pair!r}: there is no sign {sign + found[0].strip()!r}; allowed signs: "
                f"{', '.join(SIGNS)}; for a value that begins with it: {column}:{operator}={text.lstrip()}"
            )
        if operator not in OPERATORS:
            raise UsageError(
                f"--filter {pair!r}: there is no operator {operator!r}; allowed: {', '.join(OPERATORS)} "
                "(use --filters for a column with a colon in its name)"
            )
        tests = filters.setdefault(column, {})
        if not isinstance(tests, dict):
            tests = filters[column] = {"eq": tests}
        if operator in tests:
            raise UsageError(f"--filter {pair!r}: {operator} on {column} is given twice; use {column}:in=a,b")
        tests[operator] = _value(text, operator)
    return {column: _shortest(tests) for column, tests in filters.items()}


def parse_options(
    pairs: Iterable[str],
    compression: str | None = None,
    *,
    labels: bool = False,
    language: str | None = None,
    timezone: str | None = None,
    locale: str | None = None,
) -> dict[str, Any]:
    """Parse ``key=value`` pairs. The values true, false and null are JSON values, all others are texts.

    Options with a name of their own are added to them.

    Raises:
        UsageError: a pair has no equals sign.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name:
            raise UsageError(f"--option {pair!r}: expected key=value")
        options[name] = WORDS.get(text, text)
    named = {
        "compression": compression,
        "headers": "labels" if labels else None,
        "language": language,
        "timezone": timezone,
        "locale": locale,
    }
    return options | {name: value for name, value in named.items() if value is not None}


def parse_encrypt(keys: Iterable[str], *, zip_password: bool) -> dict[str, Any] | None:
    """Return the field ``encrypt`` of the options ``--encrypt-for`` and ``--zip-password``.

    Raises:
        UsageError: both are given, or a file of keys cannot be read.
    """
    found = [key for text in keys for key in _keys_of(text)]
    if found and zip_password:
        raise UsageError("--encrypt-for and --zip-password cannot be used together")
    if zip_password:
        return {"zip_password": True}
    return {"age": found} if found else None


def _keys_of(text: str) -> list[str]:
    if not text.startswith("@"):
        return [text]
    try:
        lines = Path(text[1:]).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--encrypt-for {text}: the file cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for unit, base in (("B", 1000), ("iB", 1024))
}


def parse_split(rows: int | None, size: str | None) -> dict[str, int] | None:
    """Return the field ``split`` of the options ``--split-rows`` and ``--split-bytes``.

    Raises:
        UsageError: both are given, or the size is none.
    """
    if rows is not None and size is not None:
        raise UsageError("--split-rows and --split-bytes cannot be used together")
    if rows is not None:
        return {"rows": rows}
    if size is None:
        return None
    found = re.fullmatch(r"([0-9]{1,15}) ?([kKMGT]?i?B?)", size.strip())
    unit = None if found is None else _UNITS.get(found[2].replace("k", "K"))
    if found is None or unit is None:
        raise UsageError(f"--split-bytes {size!r}: expected a size such as 500MB, 2GiB or 1048576")
    return {"bytes": int(found[1]) * unit}


def parse_columns(texts: Iterable[str]) -> list[str] | None:
    """Return the names in comma-separated lists, or ``None`` if there are none."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    return names or None


def _parts(pair: str) -> tuple[str, str, str]:
    """Split at the first sign; return the text before it, the sign, and the text after it.

    Behind ``column:op`` the sign is ``=`` alone: ``note:eq==a`` is the value ``=a``.
    """
    found = re.search("|".join(map(re.escape, SIGNS)), pair)
    if found is None:
        return pair, "", ""
    target, sign = pair[: found.start()], found[0]
    if ":" in target and sign == "==":
        sign = "="
    text = pair[len(target) + len(sign) :]
    return (target.strip(), sign, text.strip()) if target != target.rstrip() else (target, sign, text)


def _value(text: str, operator: str) -> Any:
    """Parse a value. Numbers and times stay texts, because the service parses them by the column's type."""
    if text in WORDS and operator not in TEXTUAL:
        return WORDS[text]
    if text[:1] in ('"', "[", "{"):
        try:
            return json.loads(text, parse_float=exact_number)
        except ValueError:
            pass
    return [part.strip() for part in text.split(",")] if operator in LISTS else text


def _object(document: str, option: str) -> dict[str, Any]:
    try:
        content = json.loads(document, object_pairs_hook=unique_names, parse_float=exact_number)
    except RepeatedName as error:
        raise UsageError(f"{option}: {error}") from error
    except ValueError as error:
        raise UsageError(f"{option} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{option} must be a JSON object such as " + '{"kind": "proof"}')
    return content


def _shortest(tests: Any) -> Any:
    plain = isinstance(tests, dict) and set(tests) == {"eq"} and not isinstance(tests["eq"], dict)
    return tests["eq"] if plain else tests
