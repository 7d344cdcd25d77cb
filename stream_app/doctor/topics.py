"""Kafka: are the topics there, and are they read."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from stream_app.brokers import Brokers, Group, Place
from stream_app.doctor.findings import Area, Finding
from stream_app.events import Topic
from stream_app.kafka import SINGLE_PARTITION
from stream_app.settings import Settings

AREA = Area("kafka")

READ = (Topic.REQUESTS, Topic.TICKS, Topic.EVENTS)
"""What the workers read."""

LONG_LAG = 10_000
STILL_LAG = 2
"""Messages that may remain unread for good: what a transaction leaves at the end of a partition is none."""

LOOK_AGAIN = 3.0
"""Seconds in which a worker that reads at all gets on."""


async def check_topics(brokers: Brokers, settings: Settings) -> AsyncIterator[Finding]:
    """Raises Outage where Kafka does not answer."""
    found = await brokers.partitions(list(Topic))
    lacking = [topic for topic in Topic if topic not in found]
    yield AREA.unless(
        bool(lacking),
        "topics",
        ", ".join(f"{topic} ({len(found[topic])})" for topic in Topic if topic in found),
        f"{', '.join(lacking)} missing",
        "start a worker, which makes them, or make them by hand",
    )
    narrow = [topic for topic in found if len(found[topic]) < _wanted(topic, settings)]
    if narrow:
        yield AREA.warning(
            "partitions",
            f"fewer than EXPORTER_KAFKA_PARTITIONS in {', '.join(narrow)}",
            "add partitions by hand: existing topics are left as they are",
        )
    group = await brokers.group()
    yield AREA.unless(
        not (group.is_stable and group.members),
        "workers",
        f"{len(group.members)} workers in group {settings.kafka_group}",
        f"group {settings.kafka_group} is {group.state} with {len(group.members)} members",
        "start a worker; a group that stays in a rebalance has a member that does not answer",
    )
    places: list[Place] = [(topic, number) for topic in READ for number in sorted(found.get(topic, ()))]
    async for finding in _check_lag(brokers, group, places):
        yield finding


def _wanted(topic: str, settings: Settings) -> int:
    return 1 if topic in SINGLE_PARTITION else settings.kafka_partitions


async def _check_lag(brokers: Brokers, group: Group, places: list[Place]) -> AsyncIterator[Finding]:
    lag = _lag(group, await brokers.ends(places), places)
    behind = [place for place in places if lag[place] > STILL_LAG]
    total = sum(lag.values())
    if not behind:
        yield AREA.ok("lag", f"{total} messages unread")
        return
    await asyncio.sleep(LOOK_AGAIN)
    later = await brokers.group()
    still = [place for place in behind if later.committed.get(place) == group.committed.get(place)]
    if still:
        yield AREA.problem(
            "lag",
            f"{sum(lag[place] for place in still)} messages wait unread in "
            + ", ".join(f"{topic}[{number}]" for topic, number in still),
            "see in the workers' logs what they wait for; restart one that says nothing",
        )
    elif total > LONG_LAG:
        yield AREA.warning("lag", f"{total} messages unread", "start more workers if it grows")
    else:
        yield AREA.ok("lag", f"{total} messages unread, and getting fewer")


def _lag(group: Group, ends: Mapping[Place, int], places: list[Place]) -> dict[Place, int]:
    return {place: ends.get(place, 0) - max(group.committed.get(place, 0), 0) for place in places}
