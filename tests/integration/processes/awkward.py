"""A format for tests of the framing process. The process imports this module, so it imports little."""

import os
import signal
from collections.abc import Iterator, Sequence

from stream_app.exports.columns import Column
from stream_app.exports.formats.base import CopySelect, Document, Format, Tally
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Options


class Awkward(Format):
    """Treats each row as its text demands."""

    name = extension = media_type = description = "awkward"

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        raise NotImplementedError

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        for chunk in chunks:
            tally.rows += 1
            match chunk:
                case b"die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case b"reject":
                    raise Rejected("too odd", code="odd")
                case b"odd":
                    raise type("Local", (Exception,), {})("cannot be pickled")
                case b"memory":
                    raise MemoryError
                case b"print":
                    print("a library prints")
                case b"end":
                    return
                case b"large":
                    yield b"x" * 10_000_000
                case b"warn":
                    tally.warnings["odd"] += 1
                case b"pid":
                    yield str(os.getpid()).encode()
            yield b"."
