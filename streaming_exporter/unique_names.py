"""Refuses JSON objects that have a name twice, of which a parser would silently keep the last. Pure."""

from collections import Counter
from typing import Any


class RepeatedName(ValueError):
    """A name is there several times in one object. ``name`` is that name."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(f"the name {name[:100]!r} is there {count} times in one object; write it once")
        self.name = name[:100]


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; the argument ``object_pairs_hook`` of :func:`json.loads`.

    Raises:
        RepeatedName: the object has a name twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedName(*Counter(name for name, _ in pairs).most_common(1)[0])
    return found
