"""Hashes and counts a stream of bytes, and cuts it into pieces of one size."""

import hashlib
from collections.abc import Iterator


class HashedStream:
    """An iterator of chunks seen as pieces; ``size`` is in bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was taken from the chunks so far."""
        return self._digest.hexdigest()

    def pieces(self, size: int) -> Iterator[bytes]:
        """Pieces of exactly ``size`` bytes, the last one shorter; raises what the chunks raise."""
        waiting: list[bytes] = []
        have = 0
        for chunk in self._chunks:
            self._digest.update(chunk)
            self.size += len(chunk)
            waiting.append(chunk)
            have += len(chunk)
            while have >= size:
                rest = waiting[-1]
                cut = len(rest) - (have - size)
                waiting[-1] = rest[:cut]
                piece = b"".join(waiting)
                waiting, have = ([rest[cut:]], have - size) if have > size else ([], 0)
                yield piece
                del piece
        if waiting:
            yield b"".join(waiting)
