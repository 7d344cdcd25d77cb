"""The format ``tsv`` passes the conformance suite of the service."""

import re

from exporter_example_plugins.tsv import TsvFormat

from stream_app.plugins.conformance.formats import FormatConformance, Table

UNESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def unescape(cell: str) -> str | None:
    """Return the value of a cell."""
    if cell == "\\N":
        return None
    return re.sub(r"\\(.)", lambda found: UNESCAPED.get(found[1], found[1]), cell)


class TestTsv(FormatConformance):
    format = TsvFormat()

    def read(self, content: bytes) -> Table:
        names, *lines = content.decode().split("\n")[:-1]
        rows = [tuple(unescape(cell) for cell in line.split("\t")) for line in lines]
        return [unescape(name) or "" for name in names.split("\t")], rows
