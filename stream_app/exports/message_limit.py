"""No message of the source is kept that is larger than a worker has memory for.

PostgreSQL sends a row of COPY as one message, and the driver hands a message on once it has all of it. So
what has come of a message is counted while it comes, and the connection is closed at the limit: before
anything grows, whatever the types of the row are, and at no cost for the rows that are small enough.
"""

import asyncio

from stream_app.errors import Rejected

LONGEST = 13 * 2**20
"""Bytes of the longest row, unless somebody says otherwise."""


class MessageTooLong(Rejected):
    """A row is longer than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"a row has more than {limit:,} bytes; leave its largest column or the row out",
            code="value_too_large",
        )


class MessageLimit(asyncio.Protocol):
    """Stands between a connection's transport and its driver while one statement is copied."""

    def __init__(self, transport: asyncio.Transport, limit: int) -> None:
        """``limit`` is how many bytes of one message are taken."""
        self._transport = transport
        self._limit = limit
        self._driver = transport.get_protocol()
        self._waiting = 0
        self.is_exceeded = False
        transport.set_protocol(self)

    def message_ended(self) -> None:
        """Say that the driver has handed on what there was."""
        self._waiting = 0

    def remove(self) -> None:
        """Leave the connection to its driver alone."""
        if not self.is_exceeded:
            self._transport.set_protocol(self._driver)

    def data_received(self, data: bytes) -> None:
        """Pass it on, or close the connection."""
        self._waiting += len(data)
        if self._waiting > self._limit:
            self.is_exceeded = True
            self._transport.abort()
        else:
            self._driver.data_received(data)  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on: the driver fails what it waits for."""
        self._driver.connection_lost(error)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._driver.eof_received()  # type: ignore[attr-defined, no-any-return]

    def pause_writing(self) -> None:
        """Pass it on."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._driver.resume_writing()
