"""Outages because of which messages wait, for each topic."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A part of the system was away, or answered and refused a write, so a batch of messages waits.

    Attributes:
        at: when the batch last failed, by :func:`time.monotonic`.
        error: the text of the error.
    """

    at: float
    error: str


class Refusals:
    """The last refusal of each topic, until work for messages of that topic succeeds.

    Each topic has its own, because work for one topic can succeed while work for another is refused.
    """

    def __init__(self) -> None:
        self._of_topic: dict[str, Refusal] = {}

    def note(self, topic: str, refusal: Refusal) -> None:
        """Note that a batch of ``topic`` has failed."""
        self._of_topic[topic] = refusal

    def end(self, topic: str) -> None:
        """Note that work for messages of ``topic`` has succeeded."""
        self._of_topic.pop(topic, None)

    def of(self, topic: str) -> Refusal | None:
        """Return the refusal because of which messages of ``topic`` wait, or ``None``."""
        return self._of_topic.get(topic)

    @property
    def newest(self) -> Refusal | None:
        """The newest refusal of all topics whose messages wait, or ``None``."""
        return max(self._of_topic.values(), key=lambda refusal: refusal.at, default=None)
