"""Titles of sheets that every program accepts, and that differ within a workbook. Pure."""

import re
from collections.abc import Sequence

MAX_TITLE = 31
"""Characters of a title. Excel reports a workbook with more as damaged."""

RESERVED = "history"
"""A title that Excel does not allow, in any case."""


def sheet_titles(names: Sequence[str]) -> list[str]:
    """Return a title for each name. Excel does not tell titles apart by their case."""
    used = {RESERVED}
    found = []
    for name in names:
        clean = re.sub(r"[\[\]:*?/\\'\x00-\x1f]", "_", name).strip() or "_"
        title, number = clean[:MAX_TITLE], 2
        while title.casefold() in used:
            mark = f" ({number})"
            title, number = clean[: MAX_TITLE - len(mark)] + mark, number + 1
        used.add(title.casefold())
        found.append(title)
    return found
