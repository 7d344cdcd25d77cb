"""All formats. A new one is a file beside this one and a line here."""

from collections.abc import Mapping

from stream_app.exports.formats.base import Format
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.json import JsonFormat, NdjsonFormat

FORMATS: Mapping[str, Format] = {item.name: item for item in (CsvFormat(), JsonFormat(), NdjsonFormat())}
"""Formats by the name that requests use."""
