"""Compares two JSON Schemas: which values the other side can no longer send, or is not prepared to receive.

The direction decides. What the service receives must not become narrower: a value that was allowed stays
allowed, and a field that is left out means the same. What it sends must not become wider: a reader of the
last release meets no field that is missing, no new type, no new word of a list. New fields are no break in
either direction.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

Schema = Mapping[str, Any]

MAX_DEPTH = 40
UPPER = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
LOWER = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
EXACT = ("pattern", "format", "const", "multipleOf", "uniqueItems", "contentEncoding")
"""Keywords that describe the allowed values as a whole, so that any other value counts as a change."""


class Direction(Enum):
    """Who sends the value."""

    RECEIVED = "received by the service"
    SENT = "sent by the service"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares schemas of two documents, whose references lead into the documents."""

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    direction: Direction

    def changes(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """Yield a line for each breaking change below ``where``."""
        yield from self._compare(old, new, where, frozenset())

    def _compare(self, old: Any, new: Any, where: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
        pair = (_reference(old), _reference(new))
        if pair in seen or len(seen) > MAX_DEPTH:
            return
        if any(pair):
            seen |= {pair}
        before, after = resolve(old, self.old), resolve(new, self.new)
        if self.direction is Direction.RECEIVED:
            was, is_now = _default(old, before), _default(new, after)
            if was not in (None, is_now):
                yield f"{where}: the default was {was} and is {is_now or 'none'}"
        old_kinds, new_kinds = _alternatives(before, self.old), _alternatives(after, self.new)
        if self.direction is Direction.RECEIVED:
            for name in sorted(_lost(old_kinds, new_kinds)):
                yield f"{where}: {name} is no longer accepted"
        else:
            for name in sorted(_lost(new_kinds, old_kinds)):
                yield f"{where}: {name} is new"
        for name in sorted(old_kinds.keys() & new_kinds.keys()):
            yield from self._same_kind(old_kinds[name], new_kinds[name], where, seen)

    def _same_kind(
        self, old: Schema, new: Schema, where: str, seen: frozenset[tuple[str, str]]
    ) -> Iterator[str]:
        yield from self._values(old, new, where)
        yield from self._limits(old, new, where)
        yield from self._properties(old, new, where, seen)
        for key in ("items", "additionalProperties"):
            before, after = old.get(key, True), new.get(key, True)
            place = f"{where}[]" if key == "items" else f"{where}.*"
            if isinstance(before, Mapping) and isinstance(after, Mapping):
                yield from self._compare(before, after, place, seen)
            elif self._narrower(before, after):
                yield f"{place}: {_short(after)} instead of {_short(before)}"

    def _narrower(self, before: Any, after: Any) -> bool:
        """Return whether a schema that is a boolean, or is not there, breaks the other side."""
        if self.direction is Direction.SENT:
            return False  # readers ignore fields that they do not know
        return (after is False and before is not False) or (before is True and isinstance(after, Mapping))

    def _values(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """Yield changes of a list of values."""
        before, after = old.get("enum"), new.get("enum")
        if self.direction is Direction.RECEIVED:
            if after is not None and before is None:
                yield f"{where}: only {_short(after)} is accepted"
            for value in before or ():
                if after is not None and value not in after:
                    yield f"{where}: the value {_short(value)} is no longer accepted"
        else:
            if before is not None and after is None:
                yield f"{where}: values beside {_short(before)} are new"
            for value in after or ():
                if before is not None and value not in before:
                    yield f"{where}: the value {_short(value)} is new"

    def _limits(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """Yield changes of limits, such as a smaller ``maxLength``."""
        narrow, wide = (new, old) if self.direction is Direction.RECEIVED else (old, new)
        for key in (*UPPER, *LOWER):
            limit, other = narrow.get(key), wide.get(key)
            if limit is None or limit == other:
                continue
            if other is None or ((limit < other) == (key in UPPER)):
                yield f"{where}: {key} was {_short(old.get(key))} and is {_short(new.get(key))}"
        for key in EXACT:
            if key == "pattern" and narrow is new and _all_match(old.get("enum"), new.get(key)):
                continue
            if narrow.get(key) is not None and old.get(key) != new.get(key):
                yield f"{where}: {key} was {_short(old.get(key))} and is {_short(new.get(key))}"

    def _properties(
        self, old: Schema, new: Schema, where: str, seen: frozenset[tuple[str, str]]
    ) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in before:
            if name not in after:
                yield f"{where}.{name}: the field is gone"
            else:
                yield from self._compare(before[name], after[name], f"{where}.{name}", seen)
        was, is_now = set(old.get("required", ())), set(new.get("required", ()))
        if self.direction is Direction.RECEIVED:
            for name in sorted(is_now - was):
                yield f"{where}.{name}: the field is required now"
        else:
            for name in sorted((was - is_now) & after.keys()):
                yield f"{where}.{name}: the field can be missing now"


def resolve(node: Any, document: Mapping[str, Any]) -> Any:
    """Return ``node``, or what its reference leads to."""
    while (reference := _reference(node)) != "":
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def _default(*schemas: Schema) -> str | None:
    """Return the default of a schema, beside its reference or behind it; ``None`` if it has none."""
    return next(
        (
            json.dumps(schema["default"])
            for schema in schemas
            if isinstance(schema, Mapping) and "default" in schema
        ),
        None,
    )


def _reference(node: Any) -> str:
    return str(node.get("$ref", "")) if isinstance(node, Mapping) else ""


def _alternatives(schema: Any, document: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the schema of each type that a value can have; alternatives of the same type are merged."""
    found: dict[str, Schema] = {}
    for each in _flat(schema, document):
        for name in _types(each):
            found[name] = each if name not in found else _merged(found[name], each)
    return found


def _flat(schema: Any, document: Mapping[str, Any]) -> Iterator[Schema]:
    """Yield the alternatives of ``anyOf`` and ``oneOf``; parts of ``allOf`` are one."""
    schema = resolve(schema, document)
    if not isinstance(schema, Mapping):
        yield {}
        return
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        for each in several:
            yield from _flat(each, document)
        return
    whole: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", ()):
        whole = {**resolve(part, document), **whole}
    yield whole


def _types(schema: Schema) -> list[str]:
    kind = schema.get("type")
    if isinstance(kind, list):
        return [str(each) for each in kind]
    if kind is not None:
        return [str(kind)]
    if "properties" in schema:
        return ["object"]
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is None:
        return ["any value"]
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return sorted({names.get(type(value), "object") for value in values})


def _all_match(values: Sequence[Any] | None, pattern: str | None) -> bool:
    """Return whether a list of values became a pattern that each of them matches."""
    if not values or pattern is None:
        return False
    return all(isinstance(value, str) and re.search(pattern, value) for value in values)


def _merged(first: Schema, second: Schema) -> Schema:
    """Return a schema that allows what either of two allows, as far as one schema can say it."""
    merged: dict[str, Any] = {}
    for key in first.keys() & second.keys():
        one, other = first[key], second[key]
        if one == other:
            merged[key] = one
        elif key == "enum":
            merged[key] = [*one, *(value for value in other if value not in one)]
        elif key in UPPER:
            merged[key] = max(one, other)
        elif key in LOWER:
            merged[key] = min(one, other)
        elif key == "required":
            merged[key] = [name for name in one if name in other]
        elif key == "properties":
            merged[key] = {**one, **other}
    return merged


def _lost(before: Mapping[str, Schema], after: Mapping[str, Schema]) -> set[str]:
    """Return the types that are not among those of ``after``."""
    if "any value" in after:
        return set()
    lost = set(before) - set(after)
    return lost - {"integer"} if "number" in after else lost


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
