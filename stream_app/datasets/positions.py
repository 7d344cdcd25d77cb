"""The lines of a TOML file at which its keys and the items of its arrays are. Pure.

``tomllib`` and the libraries like it do not tell where a value was. tree-sitter's grammar does.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tree_sitter import Node

Place: TypeAlias = tuple[str | int, ...]
"""Keys and indexes, from the outermost table to a value: ``("datasets", "orders", "columns", 0)``."""

_TABLES = frozenset({"table", "table_array_element"})
_KEYS = frozenset({"bare_key", "quoted_key", "dotted_key"})


def line_of(lines: Mapping[Place, int], place: Sequence[str | int]) -> int | None:
    """Return the line of the innermost part of ``place`` that the file has; ``None`` if it has none."""
    for length in range(len(place), 0, -1):
        found = lines.get(tuple(place[:length]))
        if found is not None:
            return found
    return None


def find_lines(text: str) -> dict[Place, int]:
    """Return the line, from 1, of each key and of each item of an array. The first place of a key counts."""
    import tree_sitter  # only faults need it
    import tree_sitter_toml

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    lines: dict[Place, int] = {}
    for place, line in _places(parser.parse(text.encode()).root_node, ()):
        lines.setdefault(place, line)
    return lines


def _places(node: "Node", above: Place) -> Iterator[tuple[Place, int]]:
    """Yield what a table, an inline table or the whole file has, with its line."""
    for child in node.named_children:
        if child.type in _TABLES:
            key = _key_of(child)
            yield from _keys(above, key)
            yield from _places(child, (*above, *(name for name, _ in key)))
        elif child.type == "pair":
            key = _key_of(child)
            yield from _keys(above, key)
            yield from _values(child.named_children[-1], (*above, *(name for name, _ in key)))


def _values(node: "Node", place: Place) -> Iterator[tuple[Place, int]]:
    if node.type == "inline_table":
        yield from _places(node, place)
    elif node.type == "array":
        items = [child for child in node.named_children if child.type != "comment"]
        for number, item in enumerate(items):
            yield (*place, number), item.start_point[0] + 1
            yield from _values(item, (*place, number))


def _keys(above: Place, key: Sequence[tuple[str, int]]) -> Iterator[tuple[Place, int]]:
    names = tuple(name for name, _ in key)
    for length, (_, line) in enumerate(key, 1):
        yield (*above, *names[:length]), line


def _key_of(node: "Node") -> list[tuple[str, int]]:
    """Return the parts of the key of a pair or of a table's header, each with its line."""
    key = next((child for child in node.named_children if child.type in _KEYS), None)
    return [] if key is None else list(_parts(key))


def _parts(key: "Node") -> Iterator[tuple[str, int]]:
    if key.type == "dotted_key":
        for part in key.named_children:
            yield from _parts(part)
        return
    text = (key.text or b"").decode()
    yield (
        (next(iter(tomllib.loads(f"{text} = 0"))) if key.type == "quoted_key" else text),
        key.start_point[0] + 1,
    )
