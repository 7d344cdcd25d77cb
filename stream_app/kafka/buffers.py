"""The messages of a topic that its agent has taken over and not handled yet."""

import asyncio
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from faust.types import EventT, Message

from stream_app.kafka.brokers import Partition


class MessageBuffer:
    """A bounded queue that also knows from which partitions the messages are that are being handled."""

    def __init__(self, most: int) -> None:
        """``most`` is how many messages can wait."""
        self._waiting: asyncio.Queue[EventT[bytes]] = asyncio.Queue(maxsize=most)
        self._unhandled: Counter[Partition] = Counter()

    async def put(self, event: EventT[bytes]) -> None:
        """Add a message, once there is room for it."""
        await self._waiting.put(event)
        self._unhandled[_place(event)] += 1

    async def get(self) -> EventT[bytes]:
        """Take the next message, once there is one. It counts as unhandled until :meth:`note_handled`."""
        return await self._waiting.get()

    def get_nowait(self) -> EventT[bytes]:
        """Take the next message.

        Raises:
            asyncio.QueueEmpty: there is none.
        """
        return self._waiting.get_nowait()

    def note_handled(self, events: Iterable[EventT[bytes]]) -> None:
        """Count these messages no longer."""
        self._unhandled.subtract(_place(event) for event in events)
        self._unhandled = +self._unhandled

    @property
    def is_empty(self) -> bool:
        """Whether no message waits; some can be in handling."""
        return self._waiting.empty()

    @property
    def is_full(self) -> bool:
        """Whether others can wait outside for room."""
        return self._waiting.full()

    @property
    def places(self) -> set[Partition]:
        """The partitions of the messages that wait or are being handled."""
        return set(self._unhandled)


def _place(event: EventT[bytes]) -> Partition:
    return event.message.topic, event.message.partition


OVERHEAD = 1_000
"""Bytes that a message takes beside its key, its value and its headers."""


class BufferedBytes:
    """Counts each message for as long as anything refers to it: no way out of memory can be forgotten."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()
        self._messages: dict[int, weakref.ref[Message]] = {}

    def add(self, message: Message) -> None:
        """Count ``message`` until it is gone."""
        topic, size, place = message.topic, _size(message), id(message)

        def gone(_: object) -> None:
            self._bytes[topic] -= size
            self._messages.pop(place, None)

        self._bytes[topic] += size
        self._messages[place] = weakref.ref(message, gone)

    def of(self, topic: str) -> int:
        """The bytes of this topic's messages."""
        return self._bytes[topic]

    def messages(self) -> list[Message]:
        """All of them."""
        return [message for found in list(self._messages.values()) if (message := found()) is not None]


def _size(message: Message) -> int:
    pairs: Any = message.headers or ()
    headers = sum(len(name) + len(value or b"") for name, value in pairs)
    return OVERHEAD + len(message.key or b"") + len(message.value or b"") + headers
