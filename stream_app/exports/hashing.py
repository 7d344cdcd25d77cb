"""Hashes and counts a stream of bytes as it passes."""

import hashlib
from collections.abc import Iterator

from stream_app.exports.parts import PART_SIZE, Part, cut


class HashedStream:
    """An iterator of chunks seen as parts; ``size`` is in bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was taken from the chunks so far."""
        return self._digest.hexdigest()

    def parts(self, usual: int = PART_SIZE) -> Iterator[Part]:
        """The parts of an upload, see :func:`~stream_app.exports.parts.cut`; raises what the chunks raise."""
        return cut(self._passing(), usual)

    def _passing(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            self.size += len(chunk)
            yield chunk
