"""All formats. A new one is a file beside this one and a line here."""

from collections.abc import Mapping
from importlib.util import find_spec

from stream_app.exports.formats.base import Format
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.json import JsonFormat, NdjsonFormat
from stream_app.exports.formats.parquet.format import ParquetFormat
from stream_app.exports.formats.pdf.format import PdfFormat

_NEEDS = {"parquet": "pyarrow"}
"""Modules of optional extras that a format is written with; the extra is called like the format."""

_ALL: tuple[Format, ...] = (
    CsvFormat(),
    JsonFormat(),
    NdjsonFormat(),
    ExcelFormat(),
    PdfFormat(),
    ParquetFormat(),
)

FORMATS: Mapping[str, Format] = {
    item.name: item for item in _ALL if item.name not in _NEEDS or find_spec(_NEEDS[item.name])
}
"""Formats by the name that requests use: those that can be written here."""

MISSING: Mapping[str, str] = {
    item.name: f"it needs the extra [{item.name}], which is not installed here"
    for item in _ALL
    if item.name not in FORMATS
}
"""Why the others cannot, by name."""
