"""Calls the API for the marks of dead letters: sets them, reads one, and reads the states of many."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

MOST = 500
"""Limit of the letters that the API lists."""

MOST_LISTS = 40
"""Limit of the lists that a command reads, because the API reads the topic for each."""

MILLISECOND = timedelta(milliseconds=1)
"""The unit of the times of Kafka."""

NOT_FOUND = 404


@contextmanager
def marker(
    settings: Any, api_url: str | None, token: str | None, action: str, *, again: bool
) -> Iterator[Any]:
    """Yield the function that lets the API redrive or discard one letter.

    The function returns why the letter was refused, or ``None``. It raises an error of the class ``ApiError``
    if the API refuses the call or does not answer.
    """
    from producers import job_commands

    with job_commands.open_api(settings, api_url, token, None, role=job_commands.OPERATE) as api:

        def mark(letter: Any) -> str | None:
            name = {"id": letter.name, "at": letter.at.isoformat()}
            body = {"letters": [name], "again": again}
            [result] = api.call("POST", f"/exports/dead-letters:{action}", body)["results"]
            problem: str | None = result["problem"]
            return problem

        yield mark


@contextmanager
def mark_reader(settings: Any, api_url: str | None, token: str | None) -> Iterator[Any]:
    """Yield a function as :func:`marker` does, which only reads the mark of a letter."""
    from producers import job_commands
    from stream_app.kafka.dead_letter_marks import NO_LETTER, mark_problem
    from streaming_exporter.errors import ApiError

    with job_commands.open_api(settings, api_url, token, None, role=job_commands.OPERATE) as api:

        def one(letter: Any) -> list[Any]:
            """Read a letter by its id, where a list does not have all letters of its millisecond."""
            try:
                return [api.call("GET", f"/exports/dead-letters/{letter.name}", None)]
            except ApiError as error:
                if error.status != NOT_FOUND:
                    raise
                return []

        def read(letter: Any) -> str | None:
            # Not by its id: an API without these calls and one that reads another cluster both answer 404.
            span = {
                "since": letter.at.isoformat(),
                "until": (letter.at + MILLISECOND).isoformat(),
            }
            path = f"/exports/dead-letters?{urlencode({**span, 'limit': MOST})}"
            listed = api.call("GET", path, None)["dead_letters"]
            if len(listed) >= MOST and all(found["id"] != letter.name for found in listed):
                listed = one(letter)
            for found in listed:
                if (found["id"], datetime.fromisoformat(found["at"])) == (letter.name, letter.at):
                    at = found["handled_at"]
                    return mark_problem(
                        found["state"], found["handled_by"], at and datetime.fromisoformat(at)
                    )
            return NO_LETTER

        yield read


@dataclass(frozen=True, slots=True)
class KnownStates:
    """The states of letters, by id and time. If they are not complete, those of the oldest are missing."""

    by_letter: dict[tuple[str, datetime], str] = field(default_factory=dict)
    are_complete: bool = True

    def state_of(self, letter: Any) -> str | None:
        """Return the state of a letter, or ``None`` if it is not known."""
        return self.by_letter.get((letter.name, letter.at))


def states_of(
    settings: Any, api_url: str | None, token: str | None, selection: Any, state: str | None = None
) -> KnownStates:
    """Return the states of the letters in a time and from a topic, or only of those in ``state``.

    The API is not asked for ``selection.error``, because that filter needs another role. It lists the newest
    letters, so each further list ends with the oldest millisecond of the one before. If more letters than one
    list has are in one millisecond, or after :data:`MOST_LISTS` lists, the states are not complete.

    Raises:
        ApiError, UsageError: no API says the states. There is no half result.
    """
    from producers import job_commands

    known: dict[tuple[str, datetime], str] = {}
    until = selection.until
    with job_commands.open_api(settings, api_url, token, None, role=job_commands.OPERATE) as api:
        for _ in range(MOST_LISTS):
            limits = {
                "limit": MOST,
                "state": state,
                "topic": selection.topic,
                "since": selection.since and selection.since.isoformat(),
                "until": until and until.isoformat(),
            }
            query = urlencode({name: value for name, value in limits.items() if value is not None})
            answer = api.call("GET", f"/exports/dead-letters?{query}", None)
            listed = {
                (found["id"], datetime.fromisoformat(found["at"])): found["state"]
                for found in answer["dead_letters"]
            }
            known |= listed
            if answer["total"] <= len(listed):
                return KnownStates(known)
            end = min(at for _, at in listed) + MILLISECOND
            if until is not None and end >= until:
                break
            until = end
    return KnownStates(known, are_complete=False)
