"""Describes the result of a query without running it: the names and the types of its columns.

PostgreSQL sends a message RowDescription when it has prepared a statement. The driver shows its names and
types, but not the types' length or precision, so the message is read here.
(https://www.postgresql.org/docs/current/protocol-message-formats.html)
"""

import asyncio
import struct
from dataclasses import dataclass

from stream_app.exports.sources.message_limit import MessageLimit

MOST_BYTES = 8 * 2**20
"""Bytes that a server can send for a description. A result has at most 1,664 columns."""

_FIELD = struct.Struct("!IhIhih")


@dataclass(frozen=True, slots=True)
class DescribedColumn:
    """A column of a query's result.

    Attributes:
        type_oid: OID of its type.
        modifier: length or precision of the type, as PostgreSQL stores it; -1 if it has none.
        table_oid, attribute: the table's column that it shows unchanged; 0 if it is calculated.
    """

    name: str
    type_oid: int
    modifier: int
    table_oid: int
    attribute: int


class DescriptionReader(MessageLimit):
    """Keeps what the server sends while a statement is prepared: it stands between transport and driver."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Begin to keep."""
        super().__init__(transport, MOST_BYTES)
        self._received: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Keep the data and pass it on."""
        self._received.append(data)
        super().data_received(data)

    def columns(self) -> tuple[DescribedColumn, ...]:
        """Return the columns of the statement; none if it has no result."""
        return row_description(b"".join(self._received))


def row_description(received: bytes) -> tuple[DescribedColumn, ...]:
    """Return the columns of the first RowDescription in ``received``, which are whole messages."""
    position = 0
    while position + 5 <= len(received):
        kind = received[position : position + 1]
        (length,) = struct.unpack_from("!i", received, position + 1)
        if kind == b"T":
            return _columns(received[position + 5 : position + 1 + length])
        position += 1 + length
    return ()


def _columns(message: bytes) -> tuple[DescribedColumn, ...]:
    (count,) = struct.unpack_from("!h", message)
    position = 2
    found = []
    for _ in range(count):
        end = message.index(b"\0", position)
        table_oid, attribute, type_oid, _size, modifier, _format = _FIELD.unpack_from(message, end + 1)
        name = message[position:end].decode()
        found.append(DescribedColumn(name, type_oid, modifier, table_oid, attribute))
        position = end + 1 + _FIELD.size
    return tuple(found)
