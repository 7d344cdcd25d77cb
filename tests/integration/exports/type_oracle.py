"""Computes the expected form of a value in files from PostgreSQL's text, unlike the service.

The text is taken apart by the rules of PostgreSQL's manual for arrays, composite types and ranges.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tests.integration.exports.type_shapes import Shape

Json = Any

kept = lru_cache(maxsize=200_000)
"""Keeps results: the same texts are compared with the files of all formats."""

NUMBERS = {"int2", "int4", "int8", "oid", "float4", "float8", "numeric", "money"}


def text_of(text: str | None, shape: Shape) -> str | None:
    """Return the text of a cell of a text format. JSON is compared after parsing, see :func:`is_json`."""
    if text is None or is_json(shape):
        return text
    if shape.bounds is not None:
        bounds = shape.bounds
        return _ranges(text, lambda bound: _quoted(_bound(bound, bounds)))
    match shape.name:
        case "bool":
            return {"t": "true", "f": "false"}.get(text, text)
        case "bpchar":
            return text.rstrip(" ")
        case "bytea":
            return b64encode(bytes.fromhex(text.removeprefix("\\x"))).decode()
        case "money":
            return text.replace("$", "").replace(",", "")
        case "timestamp":
            return text.replace(" ", "T", 1) if text[-1] != "y" else text
        case "timestamptz":
            return text.replace(" ", "T", 1).replace("+00", "+00:00") if text[-1] != "y" else text
    return text


def is_json(shape: Shape) -> bool:
    """Return whether the cell of a text format contains JSON."""
    return bool(shape.element or shape.fields) or shape.name in ("json", "jsonb")


@kept
def json_of(text: str | None, shape: Shape) -> Json:
    """Return the value that a JSON reader returns, with decimals as :class:`Decimal`."""
    if text is None:
        return None
    if shape.element is not None:
        element = shape.element
        if shape.name:  # int2vector and oidvector
            return [json_of(item, element) for item in text.split()]
        return _array(text, shape.separator, lambda item: json_of(item, element))
    if shape.fields:
        values = zip(shape.fields, _record(text), strict=True)
        return {name: json_of(value, part) for (name, part), value in values}
    if shape.name in ("json", "jsonb"):
        return json.loads(text, parse_float=Decimal)
    rendered = text_of(text, shape)
    if shape.name == "bool":
        return rendered == "true"
    if shape.name in NUMBERS and "n" not in str(rendered).lower():
        return Decimal(str(rendered))
    return rendered


@kept
def elements_of(text: str, shape: Shape) -> list[str | None]:
    """Return an array as Parquet has it: texts, or JSON of the inner arrays."""
    element = shape.element
    assert element is not None

    def one(item: str | None) -> str | None:
        if item is not None and is_json(element) and element.name not in ("json", "jsonb"):
            return json.dumps(plain(json_of(item, element)))
        return text_of(item, element)

    items = [one(item) for item in text.split()] if shape.name else _array(text, shape.separator, one)
    return [json.dumps(item, ensure_ascii=False) if isinstance(item, list) else item for item in items]


def plain(value: Json) -> Json:
    """Return the value for comparison: numbers by their value, whatever their type is."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, Decimal | int | float) and not isinstance(value, bool):
        value += 0  # no reader keeps the sign of a zero without a point
        return (
            f"number {float(value)!r}" if isinstance(value, float) else f"number {Decimal(value).normalize()}"
        )
    return value


def _array(text: str, separator: str, one: Callable[[str | None], Any]) -> list[Any]:
    if text[0] == "[":
        text = text.partition("=")[2]
    position = 0

    def level() -> list[Any]:
        nonlocal position
        items: list[Any] = []
        position += 1
        while text[position] != "}":
            if text[position] == "{":
                items.append(level())
            elif text[position] == '"':
                items.append(one(quoted()))
            else:
                start = position
                while text[position] not in separator + "}":
                    position += 1
                bare = text[start:position]
                items.append(one(None if bare == "NULL" else bare))
            if text[position] == separator:
                position += 1
        position += 1
        return items

    def quoted() -> str:
        nonlocal position
        found = []
        position += 1
        while text[position] != '"':
            position += text[position] == "\\"
            found.append(text[position])
            position += 1
        position += 1
        return "".join(found)

    return level()


def _record(text: str) -> list[str | None]:
    fields: list[str | None] = []
    position = 1
    while True:
        value, position, was_quoted = _unquoted(text, position, ",)")
        fields.append(value if value or was_quoted else None)
        if text[position] == ")":
            return fields
        position += 1


def _unquoted(text: str, position: int, ends: str) -> tuple[str, int, bool]:
    """Return a part of a composite value or a bound, its end, and whether it had quotes."""
    found = []
    is_quoted = was_quoted = False
    while is_quoted or text[position] not in ends:
        character = text[position]
        if character == '"':
            was_quoted = True
            if is_quoted and text[position + 1] == '"':
                found.append('"')
                position += 1
            else:
                is_quoted = not is_quoted
        else:
            if character == "\\":
                position += 1
                character = text[position]
            found.append(character)
        position += 1
    return "".join(found), position, was_quoted


def _ranges(text: str, bound: Callable[[str], str]) -> str:
    """Return the text of a range or multirange with converted bounds."""
    made = []
    position = 0
    while position < len(text):
        if text[position] in "[(":
            lower, middle, lower_quoted = _unquoted(text, position + 1, ",")
            upper, end, upper_quoted = _unquoted(text, middle + 1, "])")
            first = bound(lower) if lower or lower_quoted else ""
            last = bound(upper) if upper or upper_quoted else ""
            made.append(f"{text[position]}{first},{last}{text[end]}")
            position = end + 1
        else:
            made.append(text[position])
            position += 1
    return "".join(made)


def _bound(text: str, shape: Shape) -> str:
    if shape.element is not None:
        return "[" + ",".join(map(str, json_of(text, shape))) + "]"
    return str(text_of(text, shape))


def _quoted(text: str) -> str:
    """Return a bound as PostgreSQL writes it."""
    if text and not any(character in '"\\()[], \t\n\r\v\f' for character in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'
