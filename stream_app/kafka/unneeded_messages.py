"""Messages that need no handling: they are acknowledged when they are read, and no agent receives them.

Faust's way from the consumer to an agent and back takes about 0.3 ms of processor time for each message.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from faust.types import TP

IsUnneeded = Callable[[bytes | None, Sequence[object]], bool]
"""Returns whether a message with this value and these headers needs no handling."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class UnneededMessage:
    """What Faust's consumer needs to know of a message that it acknowledges."""

    tp: TP
    offset: int
    acked: bool = False

    @property
    def topic(self) -> str:
        """The topic."""
        return self.tp.topic


def separate(
    records: Mapping[TP, Sequence[Any]], unneeded: Mapping[str, IsUnneeded]
) -> tuple[dict[TP, Sequence[Any]], list[UnneededMessage]]:
    """Return the records that need handling, in their order, and the messages that need none.

    Args:
        records: the records that the client has returned, by partition.
        unneeded: by topic, the function that finds its messages without need.
    """
    needed: dict[TP, Sequence[Any]] = {}
    rest: list[UnneededMessage] = []
    for tp, found in records.items():
        is_unneeded = unneeded.get(tp.topic)
        if is_unneeded is None:
            needed[tp] = found
            continue
        kept = []
        for record in found:
            if is_unneeded(record.value, record.headers):
                rest.append(UnneededMessage(tp, record.offset))
            else:
                kept.append(record)
        if kept:
            needed[tp] = kept
    return needed, rest
