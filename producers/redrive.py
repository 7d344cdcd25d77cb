"""Publishes dead letters again to their original topics, or lets the API do it."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from stream_app.kafka.dead_letter_topic import (
    DeadLetter,
    Selection,
    read_letters,
    redrive_problem,
    redrive_topics,
)
from stream_app.settings import Settings
from streaming_exporter.publisher import Publisher


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """The result of a redrive. ``problem`` is why the letter was not published, or ``None``."""

    letter: DeadLetter
    problem: str | None = None


class CannotMark(Exception):
    """No API that can mark letters answers."""


Mark = Callable[[DeadLetter], str | None]
"""Lets the API redrive or discard a letter; returns why it was refused, or ``None``.

Raises:
    CannotMark: no API can do it.
"""


async def mark_all(settings: Settings, selection: Selection, mark: Mark) -> list[RedriveResult]:
    """Call ``mark`` for each letter; return the results.

    Raises:
        PublishError: Kafka does not answer.
        ApiError: the API does not answer, or refuses the call.
    """
    import asyncio

    async with aclosing(read_letters(settings, selection)) as found:
        return [RedriveResult(letter, await asyncio.to_thread(mark, letter)) async for letter in found]


async def redrive_letters(
    settings: Settings,
    selection: Selection,
    *,
    dry: bool,
    report: Callable[[RedriveResult], None],
    mark: Mark | None = None,
) -> None:
    """Publish letters unchanged to their original topics, one after the other, and report each result.

    Repetitions do no harm, because the id of a request names its job. Letters stay on the dead-letter topic.
    With ``dry`` nothing is published. ``mark`` lets the API publish a letter and mark it, or with ``dry``
    read its mark. After :class:`CannotMark` this publishes the letters itself, without a mark. Other errors
    of ``mark`` end it.

    Raises:
        PublishError: Kafka does not answer; the letters that were reported as published are on their topics.
    """
    import asyncio

    topics = redrive_topics(settings)
    async with (
        Publisher(settings, client_id="exporter-redrive") as publisher,
        aclosing(read_letters(settings, selection)) as found,
    ):
        async for letter in found:
            problem = redrive_problem(letter, topics)
            if problem is None and mark is not None:
                try:
                    report(RedriveResult(letter, await asyncio.to_thread(mark, letter)))
                    continue
                except CannotMark:
                    mark = None
            if problem is None and not dry:
                await publisher.publish_raw(letter.topic, letter.key, letter.value, letter.headers)
            report(RedriveResult(letter, problem))
