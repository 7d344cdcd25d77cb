"""All formats. A new format is a module beside this one and a line here."""

from collections.abc import Mapping
from importlib.util import find_spec

from stream_app.exports.formats.base import Format
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.json import JsonFormat, NdjsonFormat
from stream_app.exports.formats.parquet.format import ParquetFormat
from stream_app.exports.formats.pdf.format import PdfFormat

_NEEDS = {"parquet": "pyarrow"}
"""Optional modules that a format needs. Their extra has the name of the format."""

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
"""The formats that are available here, by the name that requests use."""

MISSING: Mapping[str, str] = {
    item.name: f"the extra [{item.name}] is not installed here" for item in _ALL if item.name not in FORMATS
}
"""The reasons why other formats are not available, by name."""
