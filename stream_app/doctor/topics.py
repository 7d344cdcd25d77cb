"""Check Kafka: the topics exist, and the workers read them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.kafka.brokers import Brokers, Group, Partition
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import SINGLE_PARTITION

AREA = FindingFactory("kafka")

READ = (Topic.REQUESTS, Topic.TICKS, Topic.EVENTS)
"""Topics that the workers read."""

LONG_LAG = 10_000
STILL_LAG = 2
"""Unread offsets of a partition that are no problem: the marker of a transaction takes one."""

RECHECK_SECONDS = 3.0
"""Seconds in which a working consumer commits a new offset."""


async def check_topics(brokers: Brokers, settings: Settings) -> AsyncIterator[Finding]:
    """Yield the findings about topics, workers, lag and offsets.

    Raises:
        Outage: Kafka does not answer.
    """
    names = {topic: settings.topic(topic) for topic in Topic}
    known = await brokers.partitions(list(names.values()))
    found = {topic: known[name] for topic, name in names.items() if name in known}
    lacking = [name for topic, name in names.items() if topic not in found]
    yield AREA.problem_if(
        bool(lacking),
        "topics",
        ", ".join(f"{names[topic]} ({len(found[topic])})" for topic in Topic if topic in found),
        f"missing topics: {', '.join(lacking)}",
        "start a worker, which creates them, or create them by hand",
    )
    narrow = [topic for topic in found if len(found[topic]) < _wanted(topic, settings)]
    if narrow:
        yield AREA.warning(
            "partitions",
            f"fewer than EXPORTER_KAFKA_PARTITIONS in {', '.join(settings.topic(topic) for topic in narrow)}",
            "add partitions by hand: the workers do not change existing topics",
        )
    group = await brokers.group()
    yield AREA.problem_if(
        not (group.is_stable and group.members),
        "workers",
        f"{len(group.members)} workers in group {settings.group}",
        f"group {settings.group} is {group.state} with {len(group.members)} members",
        "start a worker; if the group stays in a rebalance, restart the member that does not answer",
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
        yield AREA.ok("lag", f"{total} unread messages")
        return
    await asyncio.sleep(RECHECK_SECONDS)
    later = await brokers.group()
    still = [place for place in behind if later.committed.get(place) == group.committed.get(place)]
    if still:
        yield AREA.problem(
            "lag",
            f"{sum(lag[place] for place in still)} messages are not read in "
            + ", ".join(f"{topic}[{number}]" for topic, number in still),
            "find in the workers' logs what they wait for; restart a worker that logs nothing",
        )
    elif total > LONG_LAG:
        yield AREA.warning("lag", f"{total} unread messages", "start more workers if the number grows")
    else:
        yield AREA.ok("lag", f"{total} unread messages, and the number falls")


def _lag(group: Group, ends: Mapping[Partition, int], places: list[Partition]) -> dict[Partition, int]:
    return {place: max(0, ends.get(place, 0) - max(group.committed.get(place, 0), 0)) for place in places}


async def _check_offsets(brokers: Brokers, group: Group, places: list[Partition]) -> Finding:
    """Check that each partition still has the offset that the group has committed."""
    begins, ends = await brokers.begins(places), await brokers.ends(places)
    wrong = []
    for place in places:
        committed, name = group.committed.get(place, -1), f"{place[0]}[{place[1]}]"
        if committed < 0:
            continue
        if committed > ends[place]:
            wrong.append(f"{name} ends at {ends[place]}, but {committed} is committed")
        elif committed < begins[place]:
            wrong.append(f"{name} begins at {begins[place]}, but {committed} is committed")
    return AREA.problem_if(
        bool(wrong),
        "offsets",
        "each partition has the committed offset of the group",
        f"committed offsets that do not exist: {', '.join(wrong)}",
        "find the cause (an unclean leader election, a restored or mirrored topic, short retention.ms); then "
        "restart the workers, which read such a partition from its start, and publish lost messages again",
    )
