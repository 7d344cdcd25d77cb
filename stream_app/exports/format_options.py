"""Which options of a request belong to which format.

Events ignore options of other formats. The HTTP API and commands refuse them, because a person who sets one
expects that it has an effect.
"""

from collections.abc import Iterable, Mapping

from stream_app.exports.formats.base import Format
from streaming_exporter.errors import Rejected
from streaming_exporter.events import CsvOptions, Options, PdfOptions

_OWN = frozenset(CsvOptions.model_fields) | frozenset(PdfOptions.model_fields)
"""Options of single formats; all others are about all formats."""


def options_of(file_format: Format) -> list[str]:
    """Return the names of the options that the format has."""
    own = _OWN if file_format.own_options is None else file_format.own_options
    return [
        name
        for name in Options.model_fields
        if name in own or (name not in _OWN and (name != "compression" or file_format.compressible))
    ]


def kept_options(options: Mapping[str, object], file_format: Format) -> dict[str, object]:
    """Return the options without those of other formats, which have no effect."""
    own = options_of(file_format)
    return {name: value for name, value in options.items() if name in own or name not in _OWN}


def refuse_foreign_options(names: Iterable[str], file_format: Format) -> None:
    """Refuse options of other formats. Whether the format can be compressed is checked elsewhere.

    Raises:
        Rejected: one of ``names`` belongs to other formats. The text has the options of this one.
    """
    own = options_of(file_format)
    for name in names:
        if name in _OWN and name not in own:
            raise Rejected(
                f"the format {file_format.name} has no such option; leave it out",
                code="foreign_option",
                field=f"options.{name}",
                allowed=own,
            )
