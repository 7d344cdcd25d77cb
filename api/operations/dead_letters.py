"""Dead letters for operators: reads them from their topic, redrives and discards them, and marks both.

A message of Kafka cannot be changed or removed one by one, so the marks are rows of the state database. The
mark is written before the publication: of two calls only one publishes. If the answer of Kafka is lost, the
letter stays ``redriving``: it is not known whether it was published, and only ``again`` repeats it.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.operations.schemas import DeadLetterChoice, DeadLetterResult, DeadLetterView
from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.kafka.dead_letter_marks import NO_LETTER, LetterState, mark_problem
from stream_app.kafka.dead_letter_topic import (
    DeadLetter,
    Newest,
    Selection,
    parse_id,
    read_letters,
    redrive_problem,
    redrive_topics,
)
from stream_app.settings import Settings
from streaming_exporter.errors import PublishError, Rejected, Retryable, UsageError
from streaming_exporter.publisher import Publisher

log = structlog.get_logger(__name__)

READ_SECONDS = 20.0
"""Time-out of reading the topic."""

_ALL = text("SELECT * FROM handled_dead_letters")
_MARK = text(
    """
    INSERT INTO handled_dead_letters AS known ("partition", "offset", written_at, state, handled_by)
    VALUES (:partition, :offset, :written_at, :state, :by)
    ON CONFLICT ("partition", "offset", written_at) DO UPDATE SET
        state = excluded.state, handled_by = excluded.handled_by, handled_at = now()
    WHERE :again
    RETURNING state
    """
)
_FINISH = text(
    """
    UPDATE handled_dead_letters SET state = :state, handled_at = now()
    WHERE "partition" = :partition AND "offset" = :offset AND written_at = :written_at
    """
)
_ONE = text(
    """
    SELECT * FROM handled_dead_letters
    WHERE "partition" = :partition AND "offset" = :offset AND written_at = :written_at
    """
)

_QUOTED = re.compile(
    r"(?<!\w)b?(?:'(?:[^'\\]|\\.)*(?:'|\\?$)|\"(?:[^\"\\]|\\.)*(?:\"|\\?$))|\\x1b.*", re.DOTALL
)
"""A text in quotation marks, as ``repr`` writes it. Long reasons are cut, so its end can be missing."""


@dataclass(frozen=True, slots=True)
class MarkedLetter:
    """A dead letter, and what was done with it."""

    letter: DeadLetter
    mark: Row[Any] | None

    @property
    def state(self) -> str:
        """Return the state of the letter."""
        return self.mark.state if self.mark is not None else LetterState.NEW

    def view(self, *, with_data: bool, whole: bool = False) -> DeadLetterView:
        """Return the view; texts of the message are left out unless ``with_data``."""
        shown = self.letter.as_json(whole=whole and with_data)
        error = str(shown.pop("error"))
        return DeadLetterView(
            **shown,
            error=error if with_data else without_values(error),
            state=self.state,
            handled_by=self.mark.handled_by if self.mark is not None else None,
            handled_at=self.mark.handled_at if self.mark is not None else None,
        )


def without_values(reason: str) -> str:
    """Return the reason of a dead letter without the values of the message that it repeats."""
    return _QUOTED.sub("…", reason.partition(", got ")[0])


@dataclass(slots=True)
class DeadLetters:
    """Reads and handles dead letters. One call at a time reads the topic, so that many calls cost little."""

    settings: Settings
    engine: AsyncEngine
    publisher: Publisher
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def newest(
        self, selection: Selection, state: str | None, limit: int, *, with_data: bool
    ) -> tuple[list[DeadLetterView], int]:
        """Return the newest ``limit`` letters of a state, newest first, and the number of all of them.

        Their values are not kept, because they can be large.

        Raises:
            Retryable: Kafka or the state database does not answer in time.
        """
        marks = await self._marks()
        found = Newest[DeadLetterView](limit)

        def take(letter: DeadLetter) -> None:
            marked = MarkedLetter(letter, marks.get((*letter.id, letter.at)))
            if state is None or marked.state == state:
                found.add(letter, lambda _: marked.view(with_data=with_data))

        await self._read(selection, take)
        return found.in_order()[::-1], found.number

    async def find(self, letter_id: str) -> MarkedLetter | None:
        """Return one letter, or ``None`` if there is none with this id.

        Raises:
            Rejected: this is not an id.
            Retryable: Kafka or the state database does not answer in time.
        """
        found: list[DeadLetter] = []
        await self._read(Selection(ids=(_parsed(letter_id),)), found.append)
        return MarkedLetter(found[0], await self._mark_of(found[0])) if found else None

    async def redrive(self, choice: DeadLetterChoice, *, by: str) -> list[DeadLetterResult]:
        """Publish letters unchanged to their original topics, each once.

        A letter that cannot be marked is not published, and its result has the reason.

        Raises:
            Rejected: an id is none.
            Retryable: Kafka does not answer, so nothing was published.
        """
        topics = redrive_topics(self.settings)
        results = []
        for letter_id, letter in await self._chosen(choice):
            problem = NO_LETTER if letter is None else redrive_problem(letter, topics)
            if letter is not None and problem is None:
                problem = await self._mark(letter, LetterState.REDRIVING, by=by, again=choice.again)
            if letter is not None and problem is None:
                problem = await self._publish(letter)
            results.append(_result(letter_id, LetterState.REDRIVEN, problem))
        return results

    async def discard(self, choice: DeadLetterChoice, *, by: str) -> list[DeadLetterResult]:
        """Mark letters as discarded. They stay on their topic until its retention ends.

        Raises:
            Rejected: an id is none.
            Retryable: Kafka does not answer.
        """
        results = []
        for letter_id, letter in await self._chosen(choice):
            problem = (
                NO_LETTER
                if letter is None
                else await self._mark(letter, LetterState.DISCARDED, by=by, again=choice.again)
            )
            results.append(_result(letter_id, LetterState.DISCARDED, problem))
        return results

    async def _chosen(self, choice: DeadLetterChoice) -> list[tuple[str, DeadLetter | None]]:
        wanted = {item.id: _parsed(item.id) for item in choice.letters}
        letters: list[DeadLetter] = []
        await self._read(Selection(ids=tuple(wanted.values())), letters.append)
        found = {letter.id: letter for letter in letters}
        chosen = []
        for item in choice.letters:
            letter = found.get(wanted[item.id])
            if letter is not None and item.at is not None and letter.at != item.at:
                letter = None  # the caller has read another cluster, or the topic was made anew
            chosen.append((item.id, letter))
        return chosen

    async def _publish(self, letter: DeadLetter) -> str | None:
        try:
            await self.publisher.publish_raw(letter.topic, letter.key, letter.value, letter.headers)
        except PublishError as error:
            return f"it is not known whether it was published: {error}"
        try:
            await self._execute(_FINISH, letter, state=LetterState.REDRIVEN)
        except Retryable as error:
            log.warning(
                "dead_letter.not_marked", letter=letter.name, state=LetterState.REDRIVEN, error=str(error)
            )
        return None

    async def _mark(self, letter: DeadLetter, state: str, *, by: str, again: bool) -> str | None:
        """Mark a letter; return why it was not marked, or ``None``."""
        try:
            if await self._execute(_MARK, letter, state=state, by=by, again=again):
                return None
            known = await self._mark_of(letter)
        except Retryable as error:  # the results of the letters before must not be lost with an error
            log.warning("dead_letter.not_marked", letter=letter.name, state=state, error=str(error))
            return f"it is not known whether it was marked as {state}, and it was not published: repeat it"
        if known is None:
            return "another call handles it at the moment"
        return mark_problem(known.state, known.handled_by, known.handled_at)

    async def _marks(self) -> dict[tuple[int, int, datetime], Row[Any]]:
        with outages_are_retryable():
            async with autocommitting(self.engine).connect() as connection:
                rows = (await connection.execute(_ALL)).all()
        return {(row.partition, row.offset, row.written_at): row for row in rows}

    async def _mark_of(self, letter: DeadLetter) -> Row[Any] | None:
        rows = await self._execute(_ONE, letter)
        return rows[0] if rows else None

    async def _execute(self, statement: Any, letter: DeadLetter, **values: Any) -> Sequence[Row[Any]]:
        key = {"partition": letter.id[0], "offset": letter.id[1], "written_at": letter.at}
        with outages_are_retryable():
            async with autocommitting(self.engine).connect() as connection:
                result = await connection.execute(statement, key | values)
                return result.all() if result.returns_rows else []

    async def _read(self, selection: Selection, take: Callable[[DeadLetter], None]) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS), self._reading:
                async for letter in read_letters(self.settings, selection):
                    take(letter)
        except TimeoutError as error:
            raise Retryable(
                f"the dead-letter topic was not read within {READ_SECONDS:.0f} s; limit the time with since"
            ) from error
        except PublishError as error:
            raise Retryable(str(error)) from error


def _result(letter_id: str, done: str, problem: str | None) -> DeadLetterResult:
    return DeadLetterResult(id=letter_id, done="refused" if problem else done, problem=problem)


def _parsed(letter_id: str) -> tuple[int, int]:
    try:
        return parse_id(letter_id)
    except UsageError as error:
        raise Rejected(str(error), code="bad_id", field="id") from error
