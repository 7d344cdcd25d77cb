"""Behind a pooler each transaction can be on another server, and a standby changes between transactions."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from stream_app.exports.sources.session import REPLAY_TIME_QUERY
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.transactions import REPLAY_READS, new_snapshot
from streaming_exporter.errors import Retryable

FINGERPRINT = "fingerprint_of('t')"
NAMES = ("a", "b")
"""Two standbys: of ``b`` all times are later by one hour."""


@dataclass
class Pooler:
    """A connection whose transactions, and statements outside of one, are each on the next of ``servers``.

    Attributes:
        servers: the index in :data:`NAMES` of each of them; the last one has all that follow.
        fingerprints: the values of :data:`FINGERPRINT`, of one transaction after the other.
    """

    servers: Sequence[int]
    fingerprints: Sequence[str] = ("f",)
    statements: list[str] = field(default_factory=list)
    _turns: int = 0
    _reads: int = 0
    _server: int | None = None

    async def execute(self, sql: str, *_: object, **__: object) -> str:
        self.statements.append(sql)
        self._server = self._next() if sql == "BEGIN" else None
        return ""

    async def copy_from_query(
        self, sql: str, *, output: Callable[[bytes], Awaitable[None]], **_: object
    ) -> str:
        self.statements.append("replay time" if sql == REPLAY_TIME_QUERY else "facts")
        server = self._next() if self._server is None else self._server
        await output(("\t".join(self._row(sql, server)) + "\n").encode())
        return ""

    def _row(self, sql: str, server: int) -> list[str]:
        if sql == REPLAY_TIME_QUERY:
            return [NAMES[server], f"2026-01-01T{10 + server}:00:00.000000"]
        assert sql.endswith(FINGERPRINT)
        value = self.fingerprints[min(self._reads, len(self.fingerprints) - 1)]
        self._reads += 1
        return [f"2026-01-01 {12 + server}:00:00+00", "160004", "t", NAMES[server], value]

    def _next(self) -> int:
        server = self.servers[min(self._turns, len(self.servers) - 1)]
        self._turns += 1
        return server

    async def begin(self) -> Snapshot:
        await self.execute("BEGIN")
        return await new_snapshot(cast(Any, self), "BEGIN", 60, FINGERPRINT, {})


async def test_a_standby_is_asked_between_two_transactions() -> None:
    pooler = Pooler([0])
    snapshot = await pooler.begin()
    assert snapshot.is_standby
    assert snapshot.as_of == snapshot.replayed_until == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert pooler.statements == ["BEGIN", "facts", "ROLLBACK", "replay time", "BEGIN", "facts"]


async def test_the_fingerprint_is_that_of_the_transaction_which_is_read() -> None:
    """A change of the table that is replayed after the first transaction is seen."""
    snapshot = await Pooler([0], fingerprints=["before", "after"]).begin()
    assert snapshot.initial_value == "after"


async def test_a_transaction_on_another_server_than_the_replay_time_is_not_used() -> None:
    """Standby ``a`` has replayed what ``b``, on which the rows would be read, has not."""
    alternating = Pooler([0, 1] * (REPLAY_READS + 1))
    with pytest.raises(Retryable, match="the pooler has changed the server"):
        await alternating.begin()
    assert alternating.statements.count("replay time") == REPLAY_READS


async def test_a_changed_server_is_asked_again() -> None:
    """First transaction on ``a``, replay time of ``a``, second transaction on ``b``; then all on ``b``."""
    pooler = Pooler([0, 0, 1], fingerprints=["of a", "of b", "of b, later"])
    snapshot = await pooler.begin()
    assert snapshot.replayed_until == datetime(2026, 1, 1, 11, tzinfo=UTC)
    assert snapshot.started_at == datetime(2026, 1, 1, 13, tzinfo=UTC), "by the clock of its server"
    assert snapshot.initial_value == "of b, later"
    assert pooler.statements.count("ROLLBACK") == pooler.statements.count("replay time") == 2
