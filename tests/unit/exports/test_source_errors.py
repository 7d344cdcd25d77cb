"""Users see the kind of a source error, and no part of the server's message (case S7)."""

from typing import Any

import asyncpg
import pytest

from stream_app.db.sqlstates import Meaning, meaning_of
from stream_app.exports.sources.errors import connection_error, is_lost_connection, statement_error
from stream_app.exports.sources.source import Source
from stream_app.settings import Settings
from streaming_exporter.errors import ExporterError, Outage, Rejected, Retryable
from tests.rows import each_row

KINDS: dict[str, Any] = {
    str(getattr(item, "sqlstate", None)): item
    for item in vars(asyncpg.exceptions).values()
    if isinstance(item, type) and issubclass(item, asyncpg.PostgresError) and getattr(item, "sqlstate", None)
}
SECRET = "secret-of-another-tenant"
MEANT = {
    Meaning.REFUSED: Rejected,
    Meaning.OUTAGE: Outage,
    Meaning.PASSES: Retryable,
    Meaning.BUG: Retryable,
}


@each_row("code", sorted(KINDS))
def test_no_error_has_the_message_of_the_server(code: str) -> None:
    """S7, P2: this holds for each error of the driver, in statements and in connections."""
    error = KINDS[code](SECRET)
    error.detail = error.hint = SECRET
    made: list[ExporterError] = [
        statement_error(error),
        statement_error(error, timed_out=True),
        connection_error(error),
    ]
    assert [str(item) for item in made if isinstance(item, Rejected) and SECRET in str(item)] == []
    assert isinstance(made[0], MEANT[meaning_of(code)])
    assert isinstance(made[0], Outage) == (meaning_of(code) is Meaning.OUTAGE)


@pytest.mark.parametrize(
    "raised",
    [
        asyncpg.TargetServerAttributeNotMatched("None of the hosts match the target attribute requirement"),
        asyncpg.InternalClientError("unforeseen"),
        asyncpg.exceptions.ClientConfigurationError("invalid passfile"),
        ConnectionRefusedError(),
        ValueError("invalid port"),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_a_source_to_which_no_connection_is_possible_is_away(
    monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    """No attempt at a job counts as failed meanwhile. During a failover every server can be a replica."""

    async def connect(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(asyncpg, "connect", connect)
    source = Source(Settings(_env_file=None), connections=1)
    with pytest.raises(Outage):
        await source.fetch("SELECT 1")
    assert source.pool.unavailable_since is not None


@pytest.mark.parametrize("code", ["22023", "42601", "42704", "55P02"])
def test_a_setting_that_the_server_refuses_is_no_outage(code: str) -> None:
    """P4: it cannot pass. 55P02: a setting of the whole server, such as ``shared_buffers``."""
    error = connection_error(KINDS[code](SECRET))
    assert (type(error), error.code) == (Rejected, "source_misconfigured")


def test_the_reason_of_a_lost_connection_counts() -> None:
    """R11: the driver reports only the lost connection, although the server had sent the reason."""
    lost = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    assert is_lost_connection(lost)
    assert type(statement_error(lost)) is Retryable
    lost.__cause__ = asyncpg.AdminShutdownError("terminating connection due to administrator command")
    assert not is_lost_connection(lost)
    assert type(statement_error(lost)) is Outage
    assert is_lost_connection(ConnectionResetError())
    assert not is_lost_connection(asyncpg.DivisionByZeroError("x"))
