"""The media types of files that are compressed, encrypted or archives, by the last suffix of their names."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from stream_app.exports.files.compression import COMPRESSIONS
from stream_app.exports.files.encryption import AGE_SUFFIX, AGE_TYPE, ZIP_SUFFIX, ZIP_TYPE

_BY_SUFFIX: Mapping[str, str] = {
    **{compression.suffix: compression.media_type for compression in COMPRESSIONS.values()},
    ZIP_SUFFIX: ZIP_TYPE,
    AGE_SUFFIX: AGE_TYPE,
}


def outer_media_type(name: str) -> str | None:
    """Return the media type of what is around the file ``name``; ``None`` for a plain file of a format."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix)
