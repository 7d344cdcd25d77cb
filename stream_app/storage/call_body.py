"""The body of a call, sent in blocks, so that a call that is stopped ends before all of it is sent."""

import mmap
from collections.abc import Iterator
from threading import Event

from streaming_exporter.errors import Retryable

BLOCK = 2**20
"""Bytes that are sent between two looks at the event."""


class CallStopped(Retryable):
    """The call is not needed any more: its export was cancelled, or has failed."""


class CallBody:
    """A large body.

    Attributes:
        data: all of it.
    """

    def __init__(self, data: bytes | memoryview | mmap.mmap, stopped: Event) -> None:
        """Create the body. ``stopped`` ends the sending with :class:`CallStopped` when it is set."""
        self.data = data
        self._stopped = stopped

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the blocks. Each try of the call begins with the first one."""
        with memoryview(self.data) as view:
            for start in range(0, len(view), BLOCK):
                if self._stopped.is_set():
                    raise CallStopped("object store: the call was stopped")
                with view[start : start + BLOCK] as block:
                    yield block


def call_body(body: object, stopped: Event) -> object:
    """Return ``body``, or a :class:`CallBody` if it is large or a mapped file."""
    # A mapped file would be read from where the last try has ended.
    if isinstance(body, mmap.mmap) or (isinstance(body, bytes | memoryview) and len(body) > BLOCK):
        return CallBody(body, stopped)
    return body
