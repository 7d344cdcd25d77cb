"""Hashes and counts a stream of bytes on its way to whoever reads it."""

import hashlib
from collections.abc import Iterator


class HashingReader:
    """A readable over an iterator of chunks; raises whatever the iterator raises."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._waiting: list[bytes] = []
        self._pushed_back = b""
        self._digest = hashlib.sha256()
        self.size = 0
        self.exhausted = False

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was taken from the iterator so far."""
        return self._digest.hexdigest()

    def push_back(self, data: bytes) -> None:
        """Make ``data``, which was counted already, come first again."""
        self._pushed_back = data

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end."""
        if self._pushed_back:
            data, self._pushed_back = self._pushed_back[:size], self._pushed_back[size:]
            return data
        have = sum(map(len, self._waiting))
        while have <= size and not self.exhausted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.exhausted = True
                break
            self._digest.update(chunk)
            self.size += len(chunk)
            self._waiting.append(chunk)
            have += len(chunk)
        data = b"".join(self._waiting)
        self._waiting = [data[size:]] if len(data) > size else []
        return data[:size]
