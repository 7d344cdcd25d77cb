"""PDF: the memory does not depend on the size of a value (V11)."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.pdf.format import PdfFormat
from streaming_exporter.events import Options

pytestmark = (
    pytest.mark.unmeasured
)  # the measurement takes memory too, and tests of the format reach the lines

AS_OF = datetime(2026, 1, 31, 13, 30, tzinfo=UTC)
KEY = Column("id", "integer", "int4", Kind.INTEGER)
NOTE = Column("note", "text", "text", Kind.TEXT)

FILLINGS = {
    "words": b"some words ",
    "no spaces": b"x",
    "two bytes": "ы".encode(),
    "an emoji": b"x" * 1000 + "\N{GRINNING FACE}".encode(),
    "emoji": "\N{GRINNING FACE}".encode(),
    "control characters": b"\x01",
    "escaped control characters": b"\\b",
    "line breaks": b"\\n",
    "tabs": b"\\t",
    "backslashes": b"\\\\",
    "brackets": b"()",
    "Chinese": "中文，".encode(),
    "Arabic": "السلام عليكم ".encode(),
}

WARM = 2**12
"""Bytes of a value that is written first, so that the memory of fonts does not count."""

GROWN = """
import sys
from tests.integration.processes.test_pdf_memory import WARM, filled, peak, write

name, size, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
write([filled(name, WARM, 2)], 2)
before = peak()
write([filled(name, size, columns)], columns)
print(peak() - before)
"""


def peak() -> int:
    """Return the peak of the memory of this process in MB.

    That of ``getrusage`` can be the one of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) // 1024


def filled(name: str, size: int, columns: int) -> bytes:
    """Return one row as COPY writes it. Its second value is repeated up to ``size`` bytes."""
    filling = FILLINGS[name]
    value = filling * (size // len(filling))
    return b"\t".join([b"1", value, *[b"z"] * (columns - 2)]) + b"\n"


def write(chunks: list[bytes], columns: int) -> int:
    more = (Column(f"c{number}", "text", "text", Kind.TEXT) for number in range(columns - 2))
    document = Document("things", (KEY, NOTE, *more), Options(), AS_OF)
    return sum(map(len, PdfFormat().frame(iter(chunks), document, Tally())))


def grown(name: str, size: int, columns: int) -> int:
    """Return by how many MB a new process grows when it writes such a row."""
    command = [sys.executable, "-c", GROWN, name, str(size), str(columns)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILLINGS)
def test_an_eighth_of_the_largest_value_takes_less_than_an_eighth_of_150_mb(name: str) -> None:
    """V11: this is the process that writes the file. Its memory is in proportion to the value."""
    assert grown(name, PdfFormat.row_bytes // 8, 2) < 150 // 8


def test_a_tall_cell_beside_many_columns_takes_little() -> None:
    """V11: the cells beside a cell of many lines have the same height."""
    assert grown("line breaks", 2**14, 300) < 20
