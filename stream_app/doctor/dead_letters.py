"""Checks whether messages that could not be read wait for an operator."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.kafka.brokers import Brokers, Partition
from stream_app.settings import Settings
from streaming_exporter.events import Topic

AREA = FindingFactory("kafka")

_HAS_MARKS = text("SELECT to_regclass('handled_dead_letters') IS NOT NULL")
_HANDLED = text(
    """
    SELECT count(DISTINCT ("partition", "offset")) FROM handled_dead_letters
    JOIN unnest(
        CAST(:numbers AS int[]), CAST(:begins AS bigint[]), CAST(:ends AS bigint[]),
        CAST(:times AS timestamptz[])
    ) AS log (number, first, after, since)
        ON "partition" = number AND "offset" >= first AND "offset" < after
        AND written_at >= since - interval '1 minute'
    WHERE state IN ('redriven', 'discarded')
    """
)
"""How many of the letters that Kafka still has were handled.

A mark from before the first of them belongs to a topic that was deleted and created again since. The clocks
of two workers that write letters can differ by seconds.
"""


async def check_dead_letters(connection: AsyncConnection, brokers: Brokers, settings: Settings) -> Finding:
    """Return the finding about dead letters that were neither redriven nor discarded.

    Only their number is asked for: to read the topic can take long.

    Args:
        connection: of the state database. No transaction is open while Kafka is asked.
        brokers: the brokers.
        settings: the settings.

    Raises:
        Outage: Kafka does not answer.
    """
    topic = settings.topic(Topic.DEAD_LETTERS)
    partitions: list[Partition] = [
        (topic, number) for number in (await brokers.partitions([topic])).get(topic, ())
    ]
    if not partitions:
        return AREA.problem("dead letters", "hidden_topic", topic=topic)
    begins, ends = await brokers.beginning_offsets(partitions), await brokers.end_offsets(partitions)
    times = await brokers.first_message_times(partitions)
    kept = {
        "numbers": [number for _, number in times],
        "begins": [begins[partition] for partition in times],
        "ends": [ends[partition] for partition in times],
        "times": list(times.values()),
    }
    has_marks = await connection.scalar(_HAS_MARKS)  # not before the migration
    handled = (await connection.scalar(_HANDLED, kept) or 0) if has_marks else 0
    unhandled = max(0, sum(ends.values()) - sum(begins.values()) - handled)
    if not unhandled:
        return AREA.ok("dead letters", "every unreadable message was redriven or discarded")
    return AREA.warning("dead letters", "dead_letters", count=unhandled)
