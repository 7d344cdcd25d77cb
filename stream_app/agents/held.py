"""How many bytes of messages are in memory, by topic."""

import weakref
from collections import Counter
from typing import Any

from faust.types import Message

OVERHEAD = 1_000
"""Bytes that a message takes beside its key, its value and its headers."""


class HeldBytes:
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
