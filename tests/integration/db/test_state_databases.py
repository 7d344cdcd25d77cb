"""A state database that a test has used is as a new one for the next test."""

import asyncpg
import pytest

from stream_app.settings import Settings
from tests.state_databases import MOST_ROWS, StateDatabases

INSERT = "INSERT INTO early_cancellations (job_id, requested_at) SELECT gen_random_uuid(), now() FROM "


async def left_by(databases: StateDatabases, statement: str) -> tuple[Settings, Settings]:
    """Run a statement in one database; return its settings, and those of the next."""
    async with databases.one() as first:
        connection = await asyncpg.connect(first.database_url.get_secret_value())
        await connection.execute(statement)
        await connection.close()
    async with databases.one() as second:
        return first, second


async def test_a_used_database_has_no_rows(state_databases: StateDatabases) -> None:
    first, second = await left_by(state_databases, f"{INSERT} generate_series(1, 5)")
    assert second.database_url == first.database_url
    connection = await asyncpg.connect(second.database_url.get_secret_value())
    assert await connection.fetchval("SELECT count(*) FROM early_cancellations") == 0
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE further (id int)",
        "ALTER TABLE export_jobs ADD COLUMN further int",
        "ALTER TABLE export_jobs DISABLE TRIGGER ALL",
        "CREATE INDEX further ON export_jobs (format)",
        "CREATE FUNCTION further() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "GRANT SELECT ON export_jobs TO PUBLIC",
        f"{INSERT} generate_series(0, {MOST_ROWS})",
        f"{INSERT} generate_series(1, 5); ANALYZE early_cancellations",
    ],
)
async def test_a_changed_database_is_not_used_again(state_databases: StateDatabases, statement: str) -> None:
    first, second = await left_by(state_databases, statement)
    assert second.database_url != first.database_url
