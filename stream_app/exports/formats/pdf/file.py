"""The structure of a PDF file: numbered objects, and at its end the offset of each object.

Written objects are not kept in memory. An object can refer to a later one, so pages are written at once, and
fonts and totals, which depend on all pages, come last. Libraries would keep the whole document until it is
saved. Reference: ISO 32000-1, 7.5 (https://opensource.adobe.com/dc-acrobat-sdk-docs/).
"""

from array import array
from collections.abc import Mapping

from isal import isal_zlib

SIBLINGS = 200
"""Pages below one node of the page tree."""

LINE, ROW, NULL, SHAPED, LEFTWARDS = "\n", "\x0b", "\x0c", "\x0e", "\x0f"
"""Marks in the text of a column. They stand for operators of a page's content: the next line, the next row,
a NULL, a line of shaped glyphs, and the start of a line that runs from right to left.

Shown text has no control characters, so a mark is never text. In UTF-16 the bytes of a mark can also be the
end of one character and the start of one of U+0A00 to U+0FFF. The main font writes none of these.
"""

MARKS = LINE + ROW + NULL
"""Marks that end a line."""


class PdfFile:
    """Writes objects. :meth:`take` returns the bytes that were written since its last call."""

    def __init__(self) -> None:
        self._parts = [b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"]
        self._size = len(self._parts[0])
        self._offsets = array("Q", [0])
        self._tree = self.reserve()
        self._nodes: list[tuple[int, int]] = []
        self._pages: list[int] = []
        self._node = 0
        self.pages = 0

    def reserve(self) -> int:
        """Return the number of an object that will be written later."""
        self._offsets.append(0)
        return len(self._offsets) - 1

    def add(self, body: bytes, number: int = 0) -> int:
        """Write an object and return its number."""
        number = number or self.reserve()
        self._offsets[number] = self._size
        self._write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
        return number

    def stream(self, data: bytes, entries: bytes = b"", number: int = 0) -> int:
        """Write a compressed stream and return its number. ``entries`` are added to its dictionary."""
        packed = isal_zlib.compress(data, isal_zlib.ISAL_DEFAULT_COMPRESSION)
        head = b"<</Filter/FlateDecode/Length %d%b>>" % (len(packed), entries)
        return self.add(b"%b\nstream\n%b\nendstream" % (head, packed), number)

    def page(self, content: bytes, size: tuple[float, float], resources: int) -> None:
        """Write a page."""
        if not self._pages:
            self._node = self.reserve()
        entries = (self._node, *size, resources, self.stream(content))
        page = b"<</Type/Page/Parent %d 0 R/MediaBox[0 0 %.2f %.2f]/Resources %d 0 R/Contents %d 0 R>>"
        self._pages.append(self.add(page % entries))
        self.pages += 1
        if len(self._pages) == SIBLINGS:
            self._end_node()

    def finish(self, catalog: bytes, info: Mapping[bytes, bytes]) -> None:
        """Write the page tree, the document's properties and the table of offsets."""
        if self._pages:
            self._end_node()
        kids = b" ".join(b"%d 0 R" % number for number, _ in self._nodes)
        self.add(b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, self.pages), self._tree)
        root = self.add(b"<</Type/Catalog/Pages %d 0 R%b>>" % (self._tree, catalog))
        properties = self.add(b"<<%b>>" % b"".join(b"/%b%b" % pair for pair in info.items()))
        start, count = self._size, len(self._offsets)
        self._write(b"xref\n0 %d\n0000000000 65535 f \n" % count)
        self._write(b"".join(b"%010d 00000 n \n" % offset for offset in self._offsets[1:]))
        trailer = (count, root, properties, start)
        self._write(b"trailer\n<</Size %d/Root %d 0 R/Info %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % trailer)

    def take(self) -> bytes:
        """Return the bytes that were written since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def _end_node(self) -> None:
        kids = b" ".join(b"%d 0 R" % number for number in self._pages)
        entries = (self._tree, kids, len(self._pages))
        self.add(b"<</Type/Pages/Parent %d 0 R/Kids[%b]/Count %d>>" % entries, self._node)
        self._nodes.append((self._node, len(self._pages)))
        self._pages = []

    def _write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)


def string(text: str) -> bytes:
    """Return ``text`` as the inside of a string in a page's content: UTF-16 with escaped special bytes."""
    data = text.encode("utf-16-be")
    for special in (b"\\", b"(", b")"):
        if special in data:
            data = data.replace(special, b"\\" + special)
    return data.replace(b"\r", b"\\r") if b"\r" in data else data


def text_string(text: str) -> bytes:
    """Return a text outside of pages, such as the title."""
    return b"<FEFF%b>" % text.encode("utf-16-be").hex().encode()
