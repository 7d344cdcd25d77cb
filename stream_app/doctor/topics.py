"""Checks Kafka: the topics exist, and the workers read them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.kafka.brokers import Brokers, Group, Partition
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import SINGLE_PARTITION

AREA = FindingFactory("kafka")

READ = (Topic.REQUESTS, Topic.TICKS, Topic.EVENTS)
"""Topics that the workers read."""

READ_LATER = (Topic.AUDIT, Topic.DEAD_LETTERS)
"""Topics that people read, possibly weeks later."""

SHORTEST_RETENTION = timedelta(days=30)
"""Shortest time for which these keep messages without a warning. The default of brokers is 7 days."""

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
        "missing_topics",
        topics=", ".join(lacking),
    )
    narrow = [topic for topic in found if len(found[topic]) < _wanted(topic, settings)]
    if narrow:
        yield AREA.warning("partitions", "few_partitions", topics=", ".join(map(settings.topic, narrow)))
    for finding in await _check_retention(brokers, [names[topic] for topic in READ_LATER if topic in found]):
        yield finding
    group = await brokers.group()
    yield AREA.problem_if(
        not (group.is_stable and group.members),
        "workers",
        f"{len(group.members)} workers in group {settings.group}",
        "unstable_group",
        group=settings.group,
        state=group.state,
        count=len(group.members),
    )
    partitions: list[Partition] = [
        (names[topic], number) for topic in READ for number in sorted(found.get(topic, ()))
    ]
    if leaderless := await brokers.leaderless(partitions):
        names_of = ", ".join(f"{topic}[{number}]" for topic, number in leaderless)
        yield AREA.problem("leaders", "no_leader", places=names_of)
        partitions = [partition for partition in partitions if partition not in leaderless]
    async for finding in _check_lag(brokers, group, partitions):
        yield finding
    yield await _check_offsets(brokers, group, partitions)


async def _check_retention(brokers: Brokers, topics: list[str]) -> list[Finding]:
    """Check topics that people read later. Without the right to describe them there is no finding."""
    kept = await brokers.retentions(topics)
    short = {name: time for name, time in kept.items() if time is not None and time < SHORTEST_RETENTION}
    if not short:
        return [AREA.ok("retention", ", ".join(kept))] if kept else []
    days = ", ".join(f"{name} {time / timedelta(days=1):.3g}" for name, time in sorted(short.items()))
    return [AREA.warning("retention", "short_retention", topics=days, days=SHORTEST_RETENTION.days)]


def _wanted(topic: str, settings: Settings) -> int:
    return 1 if topic in SINGLE_PARTITION else settings.kafka_partitions


async def _check_lag(brokers: Brokers, group: Group, partitions: list[Partition]) -> AsyncIterator[Finding]:
    lag = _lag(group, await brokers.end_offsets(partitions), partitions)
    behind = [partition for partition in partitions if lag[partition] > STILL_LAG]
    total = sum(lag.values())
    if not behind:
        yield AREA.ok("lag", f"{total} unread messages")
        return
    await asyncio.sleep(RECHECK_SECONDS)
    later = await brokers.group()
    still = [
        partition for partition in behind if later.committed.get(partition) == group.committed.get(partition)
    ]
    if still:
        yield AREA.problem(
            "lag",
            "unread_messages",
            count=sum(lag[partition] for partition in still),
            places=", ".join(f"{topic}[{number}]" for topic, number in still),
        )
    elif total > LONG_LAG:
        yield AREA.warning("lag", "long_lag", count=total)
    else:
        yield AREA.ok("lag", f"{total} unread messages, and the number falls")


def _lag(group: Group, ends: Mapping[Partition, int], partitions: list[Partition]) -> dict[Partition, int]:
    committed = group.committed
    return {item: max(0, ends.get(item, 0) - max(committed.get(item, 0), 0)) for item in partitions}


async def _check_offsets(brokers: Brokers, group: Group, partitions: list[Partition]) -> Finding:
    """Check that each partition still has the offset that the group has committed."""
    begins, ends = await brokers.beginning_offsets(partitions), await brokers.end_offsets(partitions)
    wrong = []
    for partition in partitions:
        committed, name = group.committed.get(partition, -1), f"{partition[0]}[{partition[1]}]"
        if committed < 0:
            continue
        if committed > ends[partition]:
            wrong.append(f"{name} ends at {ends[partition]}, but {committed} is committed")
        elif committed < begins[partition]:
            wrong.append(f"{name} begins at {begins[partition]}, but {committed} is committed")
    return AREA.problem_if(
        bool(wrong),
        "offsets",
        "each partition has the committed offset of the group",
        "wrong_offsets",
        offsets=", ".join(wrong),
    )
