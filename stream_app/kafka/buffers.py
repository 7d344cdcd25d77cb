"""Buffers of messages that an agent has received but not handled yet, and the memory that they take."""

import asyncio
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from faust.types import EventT, Message

from stream_app.kafka.brokers import Partition


class MessageBuffer:
    """A bounded queue that also knows the partitions of the messages that are being handled."""

    def __init__(self, limit: int) -> None:
        """Create an empty buffer. ``limit`` is the number of messages that can wait."""
        self._waiting: asyncio.Queue[EventT[bytes]] = asyncio.Queue(maxsize=limit)
        self._unhandled: Counter[Partition] = Counter()

    async def put(self, event: EventT[bytes]) -> None:
        """Add a message; wait until there is room for it."""
        await self._waiting.put(event)
        self._unhandled[_partition_of(event)] += 1

    async def get(self) -> EventT[bytes]:
        """Take the next message; wait until there is one.

        It counts as unhandled until :meth:`note_handled`.
        """
        return await self._waiting.get()

    def get_nowait(self) -> EventT[bytes]:
        """Take the next message.

        Raises:
            asyncio.QueueEmpty: there is none.
        """
        return self._waiting.get_nowait()

    def note_handled(self, events: Iterable[EventT[bytes]]) -> None:
        """Stop counting these messages as unhandled."""
        self._unhandled.subtract(_partition_of(event) for event in events)
        self._unhandled = +self._unhandled

    @property
    def is_empty(self) -> bool:
        """Whether no message waits. Messages can still be in work."""
        return self._waiting.empty()

    @property
    def is_full(self) -> bool:
        """Whether the next message must wait for room."""
        return self._waiting.full()

    @property
    def partitions(self) -> set[Partition]:
        """The partitions of the messages that wait or are being handled."""
        return set(self._unhandled)


def _partition_of(event: EventT[bytes]) -> Partition:
    return event.message.topic, event.message.partition


OVERHEAD = 1_000
"""Bytes that a message takes in addition to its key, its value and its headers."""


class BufferedBytes:
    """Counts the bytes of messages in memory: each message for as long as anything refers to it."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()
        self._messages: dict[int, weakref.ref[Message]] = {}

    def add(self, message: Message) -> None:
        """Count ``message`` until it is deleted from memory."""
        topic, size, key = message.topic, _size(message), id(message)

        def gone(_: object) -> None:
            self._bytes[topic] -= size
            self._messages.pop(key, None)

        self._bytes[topic] += size
        self._messages[key] = weakref.ref(message, gone)

    def bytes_of(self, topic: str) -> int:
        """Return the bytes of this topic's messages."""
        return self._bytes[topic]

    def messages(self) -> list[Message]:
        """Return all messages in memory."""
        return [message for found in list(self._messages.values()) if (message := found()) is not None]


def _size(message: Message) -> int:
    pairs: Any = message.headers or ()
    headers = sum(len(name) + len(value or b"") for name, value in pairs)
    return OVERHEAD + len(message.key or b"") + len(message.value or b"") + headers
