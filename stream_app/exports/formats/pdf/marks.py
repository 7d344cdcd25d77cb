"""Marks in the text of a column: characters that stand for operators of a page's content.

No text that is shown has control characters. In UTF-16 the bytes of a mark could also be the end of a
character and the start of one of U+0A00 to U+0FFF, which the main font does not write for that reason.
"""

LINE, ROW, NULL, SHAPED, LEFTWARDS = "\n", "\x0b", "\x0c", "\x0e", "\x0f"
"""The next line, the next row, a NULL, a line that :mod:`pdf_shaping` writes, and the start of one that runs
from right to left."""

MARKS = LINE + ROW + NULL
"""What ends a line."""
