"""Pauses of claims: operators stop workers from claiming jobs of everything, a source, a dataset or a user.

Running exports go on. The pauses are rows of the state database, so they survive restarts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.bundles import bundles_with, members_of, sources_of
from stream_app.datasets.models import Dataset
from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.jobs.models import ClaimPause
from streaming_exporter.errors import Rejected

EVERYTHING = "everything"
SOURCE, DATASET, USER = "source:", "dataset:", "user:"

MAX_USER_ID = 255
"""Limit of the length of a user's id in requests."""


def anonymous(scopes: Iterable[str]) -> list[str]:
    """Return the scopes for those who must not see user ids: the pauses of users are one, ``user``."""
    return sorted({"user" if scope.startswith(USER) else scope for scope in scopes})


@dataclass(frozen=True, slots=True)
class PausedClaims:
    """What is paused, by the scopes of the pauses."""

    scopes: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether no job is claimed."""
        return EVERYTHING in self.scopes

    def scope_of(self, name: str, dataset: Dataset | None, user_id: str) -> str | None:
        """Return the widest pause of a job of ``user_id`` and of the dataset or bundle ``name``, or ``None``.

        ``dataset`` is the dataset, if it is known. A bundle is paused with each of its datasets.
        """
        found = [EVERYTHING, f"{DATASET}{name}", f"{USER}{user_id}"]
        if dataset is not None:
            found[1:1] = [f"{SOURCE}{source}" for source in sorted(sources_of(dataset))]
            found += [f"{DATASET}{member.name}" for member in members_of(dataset)]
        return next((scope for scope in found if scope in self.scopes), None)

    def datasets(self, known: Mapping[str, Dataset]) -> tuple[str, ...]:
        """Return the datasets that are paused, also those that are not known here."""
        named = {scope.removeprefix(DATASET) for scope in self.scopes if scope.startswith(DATASET)}
        named |= {bundle for name in named for bundle in bundles_with(name, known)}
        of_sources = {
            name
            for name, item in known.items()
            if any(f"{SOURCE}{source}" in self.scopes for source in sources_of(item))
        }
        return tuple(named | of_sources)

    @property
    def users(self) -> tuple[str, ...]:
        """The users whose jobs are not claimed."""
        return tuple(scope.removeprefix(USER) for scope in self.scopes if scope.startswith(USER))


def check_scope(scope: str, datasets: Mapping[str, Dataset], sources: Iterable[str]) -> None:
    """Return if ``scope`` names something that can be paused. Every user can be.

    Raises:
        Rejected: it does not; the text has what is allowed.
    """
    allowed = [
        EVERYTHING,
        *(f"{SOURCE}{name}" for name in sources),
        *(f"{DATASET}{name}" for name in datasets),
    ]
    if scope not in allowed and not (scope.startswith(USER) and 0 < len(scope) - len(USER) <= MAX_USER_ID):
        raise Rejected(
            f"there is nothing to pause with the name {scope!r:.100}",
            code="unknown_scope",
            field="scope",
            allowed=[*allowed, f"{USER}ID"],
        )


class PauseStore:
    """Reads and writes the pauses.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._autocommit = autocommitting(engine)

    async def all(self) -> Sequence[ClaimPause]:
        """Return the pauses, oldest first."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                rows = await connection.execute(
                    select(ClaimPause.__table__).order_by(ClaimPause.paused_at, ClaimPause.scope)
                )
                return [ClaimPause(**row._mapping) for row in rows]

    async def pause(self, scope: str, *, reason: str | None, by: str) -> None:
        """Pause ``scope``. A pause of the same scope gets the new reason."""
        values: dict[str, Any] = {"reason": reason, "paused_by": by, "paused_at": func.now()}
        statement = insert(ClaimPause).values(scope=scope, **values)
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=[ClaimPause.scope], set_=values)
                )

    async def resume(self, scope: str) -> bool:
        """End the pause of ``scope``; return whether there was one."""
        statement = delete(ClaimPause).where(ClaimPause.scope == scope).returning(ClaimPause.scope)
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                return (await connection.execute(statement)).one_or_none() is not None
