"""Outages because of which messages wait, for each topic."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicOutage:
    """A part of the system was away, or answered and refused a write, so a batch of messages waits.

    Attributes:
        at: when the batch last failed, by :func:`time.monotonic`.
        error: the text of the error.
    """

    at: float
    error: str


class TopicOutages:
    """The last outage of each topic, until work for messages of that topic succeeds.

    Each topic has its own, because work for one topic can succeed while work for another is refused.
    """

    def __init__(self) -> None:
        self._of_topic: dict[str, TopicOutage] = {}

    def note(self, topic: str, outage: TopicOutage) -> None:
        """Note that a batch of ``topic`` has failed."""
        self._of_topic[topic] = outage

    def end(self, topic: str) -> None:
        """Note that work for messages of ``topic`` has succeeded."""
        self._of_topic.pop(topic, None)

    def outage_of(self, topic: str) -> TopicOutage | None:
        """Return the outage because of which messages of ``topic`` wait, or ``None``."""
        return self._of_topic.get(topic)

    @property
    def newest(self) -> TopicOutage | None:
        """The newest outage of all topics whose messages wait, or ``None``."""
        return max(self._of_topic.values(), key=lambda outage: outage.at, default=None)
