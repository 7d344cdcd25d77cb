"""The visual order of the parts of a line, by the Unicode bidirectional algorithm (UAX #9).

The fast function of python-bidi returns reordered text, but not the levels, which shaping needs. The steps of
its slower function have the levels, but lack the rule for brackets. That rule is added here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar
from unicodedata import bidirectional, category

from bidi import algorithm, get_base_level

_TURNING = {"R", "AL", "AN", "RLE", "RLO", "RLI"}
"""Classes of characters that can run from right to left."""

_ALIKE = {"L", "R", "AL", "EN", "AN"}
"""Classes of characters for which a run of characters is treated like a single one."""

_STRONG = {"L": "L", "R": "R", "EN": "R", "AN": "R"}

_SEEN = TypeVar("_SEEN")


def turns(text: str) -> bool:
    """Return whether parts of ``text`` run from right to left."""
    return not _TURNING.isdisjoint(map(bidirectional, set(text)))


def is_leftwards(paragraph: str) -> bool:
    """Return whether the first letter of ``paragraph`` is of a script that runs from right to left."""
    return turns(paragraph) and get_base_level(paragraph) == 1


def levels(line: str, *, leftwards: bool) -> list[int]:
    """Return the embedding level of each character of a line. Odd levels run from right to left."""
    base = int(leftwards)
    if not leftwards and not turns(line):
        return [0] * len(line)
    # The rules use neighbours only, so one letter represents the next letters of the same class.
    first: list[int] = []
    kept = ""
    kinds: list[str] = []
    before = ""
    for number, character in enumerate(line):
        kind = bidirectional(character)
        if kind in algorithm.X9_REMOVED or (kind == before and kind in _ALIKE):
            continue
        first.append(number)
        kept += character
        kinds.append(character if kind == "ON" and character in algorithm.MIRRORED else kind)
        before = kind
    # Characters without a direction, such as joiners, get the level of the character before them.
    found = [base] * (first[0] if first else len(line))
    resolved = _resolved(_Pattern(kept, base, tuple(kinds)))
    for level, (start, end) in zip(resolved, pairwise([*first, len(line)]), strict=True):
        found += [level] * (end - start)
    for number in range(len(line.rstrip()), len(line)):
        found[number] = base
    return found


@dataclass(frozen=True, slots=True)
class _Pattern:
    """The characters of a line that decide its levels. Lines with the same ``kinds`` have the same levels."""

    kept: str = field(compare=False)
    base: int
    kinds: tuple[str, ...]


@lru_cache(maxsize=1_024)  # the rows of a table often have the same pattern, such as JSON
def _resolved(pattern: _Pattern) -> tuple[int, ...]:
    """Return the level of each character of ``pattern``."""
    kept, base = pattern.kept, pattern.base
    storage = algorithm.get_empty_storage()
    storage["base_level"] = base
    storage["base_dir"] = "LR"[base]
    algorithm.get_embedding_levels(kept, storage)
    algorithm.explicit_embed_and_overrides(storage)
    algorithm.resolve_weak_types(storage)
    _resolve_brackets(storage["chars"], base)
    algorithm.resolve_neutral_types(storage, False)
    algorithm.resolve_implicit_levels(storage, False)
    return tuple(item["level"] for item in storage["chars"])


def _resolve_brackets(characters: list[dict[str, Any]], base: int) -> None:
    """Give brackets the direction of the text within them, or else of the text around them (rule N0)."""
    forwards, backwards = ("R", "L") if base else ("L", "R")
    for opening, closing in _pairs(characters):
        inside = {_STRONG.get(item["type"]) for item in characters[opening + 1 : closing]}
        if forwards in inside:
            direction = forwards
        elif backwards in inside:
            before = (_STRONG.get(item["type"]) for item in reversed(characters[:opening]))
            direction = next(filter(None, before), forwards)
        else:
            continue
        characters[opening]["type"] = characters[closing]["type"] = direction


def _pairs(characters: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return the positions of brackets that belong together (definition BD16)."""
    pairs = []
    waiting: list[tuple[str, int]] = []
    for number, item in enumerate(characters):
        character = item["ch"]
        if item["type"] != "ON" or character not in algorithm.MIRRORED:
            continue
        if category(character) == "Ps":
            waiting.append((algorithm.MIRRORED[character], number))
        elif category(character) == "Pe":
            place = next((at for at in reversed(range(len(waiting))) if waiting[at][0] == character), None)
            if place is not None:
                pairs.append((waiting[place][1], number))
                del waiting[place:]
    return sorted(pairs)


def from_left(runs: Sequence[tuple[int, _SEEN]]) -> list[tuple[int, _SEEN]]:
    """Return runs with their levels in visual order, from their reading order (rule L2)."""
    order = list(runs)
    for level in range(max((level for level, _ in order), default=0), 0, -1):
        start = 0
        while start < len(order):
            end = start
            while end < len(order) and order[end][0] >= level:
                end += 1
            order[start:end] = order[start:end][::-1]
            start = end + 1
    return order
