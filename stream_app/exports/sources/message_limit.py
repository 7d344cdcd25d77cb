"""The limit for the size of one row of a COPY."""

import asyncio

DEFAULT_MAX_ROW_BYTES = 13 * 2**20
"""Largest size of a row if the caller gives no limit."""


class MessageLimit(asyncio.Protocol):
    """Limits the size of one message of a COPY: it stands between the transport and the driver.

    The driver keeps a message in memory until it is complete, whatever its size.
    """

    def __init__(self, transport: asyncio.Transport, limit: int) -> None:
        """Begin to count. A message with more than ``limit`` bytes ends the connection."""
        self._transport = transport
        self._limit = limit
        self._driver = transport.get_protocol()
        self._waiting = 0
        self.is_exceeded = False
        transport.set_protocol(self)

    def message_ended(self) -> None:
        """Start the next message: the driver has delivered all data up to here."""
        self._waiting = 0

    def remove(self) -> None:
        """Connect the transport and the driver again."""
        if not self.is_exceeded:
            self._transport.set_protocol(self._driver)

    def data_received(self, data: bytes) -> None:
        """Pass the data on, or close the connection."""
        self._waiting += len(data)
        if self._waiting > self._limit:
            self.is_exceeded = True
            self._transport.abort()
        else:
            self._driver.data_received(data)  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        """Forward the call to the driver, which ends everything that waits for the connection."""
        self._driver.connection_lost(error)

    def eof_received(self) -> bool | None:
        """Forward the call to the driver."""
        return self._driver.eof_received()  # type: ignore[attr-defined, no-any-return]

    def pause_writing(self) -> None:
        """Forward the call to the driver."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Forward the call to the driver."""
        self._driver.resume_writing()
