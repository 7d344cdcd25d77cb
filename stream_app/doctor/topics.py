"""Kafka: are the topics there, and are they read."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from stream_app.doctor.findings import Area, Finding
from stream_app.kafka.brokers import Brokers, Group, Partition
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import SINGLE_PARTITION

AREA = Area("kafka")

READ = (Topic.REQUESTS, Topic.TICKS, Topic.EVENTS)
"""What the workers read."""

LONG_LAG = 10_000
STILL_LAG = 2
"""Messages that may remain unread for good: what a transaction leaves at the end of a partition is none."""

RECHECK_SECONDS = 3.0
"""Seconds in which a worker that reads at all gets on."""


async def check_topics(brokers: Brokers, settings: Settings) -> AsyncIterator[Finding]:
    """Raises Outage where Kafka does not answer."""
    names = {topic: settings.topic(topic) for topic in Topic}
    known = await brokers.partitions(list(names.values()))
    found = {topic: known[name] for topic, name in names.items() if name in known}
    lacking = [name for topic, name in names.items() if topic not in found]
    yield AREA.problem_if(
        bool(lacking),
        "topics",
        ", ".join(f"{names[topic]} ({len(found[topic])})" for topic in Topic if topic in found),
        f"{', '.join(lacking)} missing",
        "start a worker, which makes them, or make them by hand",
    )
    narrow = [topic for topic in found if len(found[topic]) < _wanted(topic, settings)]
    if narrow:
        yield AREA.warning(
            "partitions",
            f"fewer than EXPORTER_KAFKA_PARTITIONS in {', '.join(settings.topic(topic) for topic in narrow)}",
            "add partitions by hand: existing topics are left as they are",
        )
    group = await brokers.group()
    yield AREA.problem_if(
        not (group.is_stable and group.members),
        "workers",
        f"{len(group.members)} workers in group {settings.group}",
        f"group {settings.group} is {group.state} with {len(group.members)} members",
        "start a worker; a group that stays in a rebalance has a member that does not answer",
    )
    places: list[Partition] = [
        (names[topic], number) for topic in READ for number in sorted(found.get(topic, ()))
    ]
    async for finding in _check_lag(brokers, group, places):
        yield finding
    yield await _check_offsets(brokers, group, places)


def _wanted(topic: str, settings: Settings) -> int:
    return 1 if topic in SINGLE_PARTITION else settings.kafka_partitions


async def _check_lag(brokers: Brokers, group: Group, places: list[Partition]) -> AsyncIterator[Finding]:
    lag = _lag(group, await brokers.ends(places), places)
    behind = [place for place in places if lag[place] > STILL_LAG]
    total = sum(lag.values())
    if not behind:
        yield AREA.ok("lag", f"{total} messages unread")
        return
    await asyncio.sleep(RECHECK_SECONDS)
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


def _lag(group: Group, ends: Mapping[Partition, int], places: list[Partition]) -> dict[Partition, int]:
    return {place: max(0, ends.get(place, 0) - max(group.committed.get(place, 0), 0)) for place in places}


async def _check_offsets(brokers: Brokers, group: Group, places: list[Partition]) -> Finding:
    """Whether each log has the offset that the group goes on from."""
    begins, ends = await brokers.begins(places), await brokers.ends(places)
    wrong = []
    for place in places:
        committed, name = group.committed.get(place, -1), f"{place[0]}[{place[1]}]"
        if committed < 0:
            continue
        if committed > ends[place]:
            wrong.append(f"{name} ends at {ends[place]}, {committed - ends[place]} before {committed}")
        elif committed < begins[place]:
            wrong.append(f"{name} has lost the {begins[place] - committed} messages from {committed} on")
    return AREA.problem_if(
        bool(wrong),
        "offsets",
        "each log has the offset that the group goes on from",
        f"committed offsets that the log does not have: {', '.join(wrong)}",
        "find out why (an unclean election, a restored or mirrored log, a short retention.ms); workers that "
        "join read such a partition from its beginning, so restart them, and publish again what is lost",
    )
