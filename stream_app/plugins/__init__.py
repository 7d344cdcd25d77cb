"""The stable interface for plug-ins: formats and masks of other packages. ``docs/plugins.md`` describes it.

A plug-in imports what it needs from here, and nothing from the other modules of the service, which change.
"""

from stream_app.exports.columns import Column, DataType, Kind
from stream_app.exports.formats.base import (
    RAW_LINES,
    ROWS,
    CopySelect,
    Document,
    Format,
    Tally,
    cell,
    line_starts,
)
from stream_app.exports.formats.rendering import as_text, base64, iso_time
from stream_app.exports.masks.base import Mask, text_of
from stream_app.exports.plugins import INTERFACE
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Options

__all__ = [
    "INTERFACE",
    "RAW_LINES",
    "ROWS",
    "Column",
    "CopySelect",
    "DataType",
    "Document",
    "Format",
    "Kind",
    "Mask",
    "Options",
    "Rejected",
    "Tally",
    "as_text",
    "base64",
    "cell",
    "iso_time",
    "line_starts",
    "text_of",
]
