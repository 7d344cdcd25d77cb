"""Titles of sheets that every program accepts, and that differ within a workbook. Pure."""

import re

MAX_TITLE = 31
"""Characters of a title. Excel reports a workbook with more as damaged."""

RESERVED = "history"
"""A title that Excel does not allow, in any case."""


class SheetTitles:
    """Chooses the titles of a workbook's sheets, one after the other."""

    def __init__(self) -> None:
        """Begin a workbook without sheets."""
        self._used = {RESERVED}
        self._numbers: dict[str, int] = {}
        """The number that the next sheet of a name gets."""

    def add(self, name: str) -> str:
        """Return the title of the next sheet. Excel does not tell titles apart by their case."""
        clean = re.sub(r"[\[\]:*?/\\'\x00-\x1f]", "_", name).strip() or "_"
        title, number = clean[:MAX_TITLE], self._numbers.get(clean, 2)
        while title.casefold() in self._used:
            mark = f" ({number})"
            title, number = clean[: MAX_TITLE - len(mark)] + mark, number + 1
        self._numbers[clean] = number
        self._used.add(title.casefold())
        return title
