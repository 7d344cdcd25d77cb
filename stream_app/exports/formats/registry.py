"""All formats: those of the service and those of plug-ins.

A new format is a module beside this one and a line here, or an entry point of another package.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec

from stream_app.exports.formats.base import Format
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.json import JsonFormat, NdjsonFormat
from stream_app.exports.formats.parquet.format import ParquetFormat
from stream_app.exports.formats.pdf.format import PdfFormat
from stream_app.exports.plugins import FORMATS_GROUP, UnusablePlugin, load_plugins
from streaming_exporter.events import Options

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

_TEXTS = {
    "name": r"[a-z0-9][a-z0-9_-]{0,49}",
    "extension": r"[A-Za-z0-9]{1,20}(\.[A-Za-z0-9]{1,20}){0,3}",
    "media_type": r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)*",
    "description": r"[^\x00-\x1f\x7f]{1,500}",
}
"""Patterns of the texts of a format: they become names of files and headers of answers."""

LARGEST_ROW_BYTES = 2**30
"""The largest row that PostgreSQL sends in one message."""


def check_format(item: Format) -> None:
    """Check what the service uses of a format from another package.

    Raises:
        UnusablePlugin: an attribute is missing or has a wrong value.
    """
    for name, pattern in _TEXTS.items():
        value = getattr(item, name, None)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise UnusablePlugin(f"its attribute {name} is {value!r:.200}; allowed: {pattern}")
    for name in ("compressible", "own_process", "holds_rows"):
        if not isinstance(value := getattr(item, name), bool):
            raise UnusablePlugin(f"its attribute {name} is {value!r:.200}; allowed: True, False")
    own = item.own_options
    if own is not None and not (isinstance(own, set | frozenset) and own <= Options.model_fields.keys()):
        names = ", ".join(Options.model_fields)
        raise UnusablePlugin(f"its attribute own_options is {own!r:.200}; allowed: None, a set of {names}")
    for name, least in (("growth", 0), ("closing_bytes", 0), ("row_bytes", 1), ("max_file_bytes", 1)):
        value = getattr(item, name)
        if value is None and name == "max_file_bytes":
            continue
        if not isinstance(value, int | float) or not least <= value < float("inf"):
            raise UnusablePlugin(f"its attribute {name} is {value!r:.200}; allowed: numbers from {least}")
    if item.row_bytes > LARGEST_ROW_BYTES:
        raise UnusablePlugin(
            f"its attribute row_bytes is {item.row_bytes}; allowed: up to {LARGEST_ROW_BYTES}"
        )


FORMAT_PLUGINS = load_plugins(FORMATS_GROUP, Format, taken={item.name for item in _ALL}, check=check_format)
"""The formats of other packages."""

FORMATS: Mapping[str, Format] = {
    item.name: item for item in _ALL if item.name not in _NEEDS or find_spec(_NEEDS[item.name])
} | dict(FORMAT_PLUGINS.items)
"""The formats that are available here, by the name that requests use."""

MISSING: Mapping[str, str] = {
    plugin.name: "it cannot be used at the moment; operators: `exporter doctor` has the reason"
    for plugin in FORMAT_PLUGINS.refused
} | {item.name: f"the extra [{item.name}] is not installed here" for item in _ALL if item.name not in FORMATS}
"""The reasons why other formats are not available, by name."""
