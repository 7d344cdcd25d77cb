"""The migrations create the tables of the models, from every point at which an earlier run stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.engine import connect_to, create_engine
from stream_app.db.migrations import config, steps, upgrade
from stream_app.jobs.models import Base
from stream_app.settings import Settings
from streaming_exporter.errors import Locked
from tests.waiting import at_most, patient

CHANGES = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE")
BUILD = "CREATE INDEX CONCURRENTLY"
LOCK = 7_301_584_221
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready)"
MIGRATES = """
    SELECT state, query, backend_xmin IS NOT NULL AS has_snapshot FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'exporter migrate'
"""

PROGRAMS = """
    SELECT 'trigger', tgname::text, pg_get_triggerdef(pg_trigger.oid)
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND relnamespace = CAST(:schema AS regnamespace)
    UNION ALL
    SELECT 'function', proname::text, pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = CAST(:schema AS regnamespace)
"""


class Injected(Exception):
    """Raised instead of executing a statement."""


async def test_a_migrated_database_has_the_models_tables(empty_settings: Settings) -> None:
    await asyncio.to_thread(upgrade, empty_settings)
    await _assert_as_modelled(empty_settings)
    await asyncio.to_thread(command.downgrade, config(empty_settings), "base")
    await asyncio.to_thread(upgrade, empty_settings)


async def test_a_migrated_database_has_the_models_triggers_and_functions(empty_settings: Settings) -> None:
    """The comparison of Alembic leaves them out."""
    await asyncio.to_thread(upgrade, empty_settings)
    engine = create_engine(empty_settings, application="test")
    async with engine.begin() as connection:
        migrated = await _programs(connection, "public")
        await connection.execute(text("CREATE SCHEMA modelled"))
        await connection.execute(text("SET LOCAL search_path = modelled"))
        await connection.run_sync(Base.metadata.create_all)
        modelled = await _programs(connection, "modelled")
    await engine.dispose()
    assert {name for kind, name, _ in migrated if kind == "trigger"} >= {"export_jobs_complete_run"}
    assert modelled == migrated


async def _programs(connection: AsyncConnection, schema: str) -> set[tuple[str, str, str]]:
    """Return kind, name and definition of the triggers and functions of a schema, without its name."""
    found = await connection.execute(text(PROGRAMS), {"schema": schema})
    return {
        (kind, name, " ".join(sql.replace(f"{schema}.", "").replace(f"'{schema}'", "schema").split()))
        for kind, name, sql in found
    }


async def test_a_migration_that_failed_at_any_statement_is_finished_by_the_next_run(
    empty_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every statement fails once. Every failed build of an index leaves an invalid index."""
    scripts = ScriptDirectory.from_config(config(empty_settings))
    monkeypatch.setattr(ScriptDirectory, "from_config", lambda _: scripts)  # each run would read all files
    await asyncio.to_thread(upgrade, empty_settings, "0006")
    failed: list[str] = []

    def fail_once(statement: str, parameters: Any) -> None:
        if (key := f"{statement} {parameters}") not in failed and statement.lstrip().startswith(CHANGES):
            failed.append(key)
            raise Injected(statement)

    invalid = 0
    with _before_each_statement(fail_once):
        while True:
            try:
                await asyncio.to_thread(upgrade, empty_settings)
            except Injected as error:
                if BUILD in str(error):
                    await _leave_invalid_index(empty_settings, str(error))
                    invalid += 1
            else:
                break
    assert invalid == 8
    assert len([one for one in failed if "DROP INDEX CONCURRENTLY" in one]) == 8
    await _assert_as_modelled(empty_settings)


async def test_tables_of_a_newer_version_are_left_as_they_are(empty_settings: Settings) -> None:
    """A rollback runs the migration of the version before, which has no file of their revision."""
    assert await asyncio.to_thread(upgrade, empty_settings, "0001") is None
    async with _session(empty_settings) as session:
        await session.execute("UPDATE alembic_version SET version_num = '9999'")
        assert await asyncio.to_thread(upgrade, empty_settings) == "9999"
        assert await session.fetchval("SELECT version_num FROM alembic_version") == "9999"
        assert await session.fetchval("SELECT to_regclass('schedule_gaps')") is None


async def test_the_build_of_an_index_has_no_time_out(
    empty_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the driver nor the server ends it, and its session keeps the lock."""
    await asyncio.to_thread(upgrade, empty_settings, "0007")
    defaults = create_engine.__kwdefaults__
    assert defaults
    monkeypatch.setitem(defaults, "command_timeout", 0.2)
    async with _session(empty_settings) as session, _session(empty_settings) as old:
        database = await session.fetchval("SELECT current_database()")
        await session.execute(f"ALTER DATABASE {database} SET statement_timeout = '400ms'")
        await _open_snapshot(old)
        running = asyncio.create_task(asyncio.to_thread(upgrade, empty_settings))
        await _until(session, MIGRATES, lambda rows: any(BUILD in row["query"] for row in rows))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 0.7)
        assert await session.fetchval("SELECT pg_try_advisory_lock($1)", LOCK) is False
        await old.execute("COMMIT")
        await running
        await session.execute(f"ALTER DATABASE {database} RESET statement_timeout")
    await _assert_as_modelled(empty_settings)


async def test_a_waiting_migration_does_not_block_the_running_one(empty_settings: Settings) -> None:
    await asyncio.to_thread(upgrade, empty_settings, "0008")
    async with _session(empty_settings) as other:
        await other.execute(f"SELECT pg_advisory_lock({LOCK})")
        running = asyncio.create_task(asyncio.to_thread(upgrade, empty_settings))
        await _until(other, MIGRATES, lambda rows: any("advisory" in row["query"] for row in rows))
        await other.execute(f"{BUILD} built_meanwhile ON export_jobs (user_id)", timeout=patient(10))
        await other.execute("DROP INDEX built_meanwhile")
        assert not running.done()
        assert not [row for row in await other.fetch(MIGRATES) if row["has_snapshot"]]
        await other.execute(f"SELECT pg_advisory_unlock({LOCK})")
        await running
    await _assert_as_modelled(empty_settings)


async def test_a_table_in_use_is_altered_later_and_blocks_no_other_session(
    empty_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LOCK_MILLISECONDS", 50)
    monkeypatch.setattr(steps, "PAUSE_SECONDS", 0.02)
    await asyncio.to_thread(upgrade, empty_settings, "0006")
    tries: list[str] = []

    def note(statement: str, _parameters: Any) -> None:
        if statement.startswith("ALTER TABLE deliveries"):
            tries.append(statement)

    async with _session(empty_settings) as reader, _session(empty_settings) as writer:
        await reader.execute("BEGIN; SELECT FROM deliveries")
        with monkeypatch.context() as patched:
            patched.setattr(steps, "TRIES", 2)
            with pytest.raises(Locked, match="has locked the table deliveries"):
                await asyncio.to_thread(upgrade, empty_settings)
        with _before_each_statement(note):
            running = asyncio.create_task(asyncio.to_thread(upgrade, empty_settings))
            await writer.execute("SET lock_timeout = '1s'")
            while len(tries) < 3:
                await writer.execute("DELETE FROM deliveries")
            await reader.execute("COMMIT")
            await running
    await _assert_as_modelled(empty_settings)


@asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    session = await connect_to(settings, application="test")
    try:
        yield session
    finally:
        await session.close()


async def _open_snapshot(session: "asyncpg.Connection[asyncpg.Record]") -> None:
    await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")


async def _until(
    session: "asyncpg.Connection[asyncpg.Record]", query: str, reached: Callable[[list[asyncpg.Record]], bool]
) -> None:
    async with at_most(20):
        while not reached(await session.fetch(query)):
            await session.execute("SELECT pg_sleep(0.02)")


async def _leave_invalid_index(settings: Settings, build: str) -> None:
    """Cancel the build of an index that waits for an older transaction."""
    async with _session(settings) as old, _session(settings) as builder, _session(settings) as watcher:
        await _open_snapshot(old)
        before = len(await watcher.fetch(INVALID))
        running = asyncio.create_task(builder.execute(build))
        await _until(watcher, INVALID, lambda rows: len(rows) > before)
        await watcher.execute(f"SELECT pg_cancel_backend({builder.get_server_pid()})")
        with pytest.raises(asyncpg.QueryCanceledError):
            await running
        assert len(await watcher.fetch(INVALID)) == before + 1


@contextmanager
def _before_each_statement(seen: Callable[[str, Any], None]) -> Iterator[None]:
    def before(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        seen(statement.strip(), parameters)

    event.listen(Engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", before)


async def _assert_as_modelled(settings: Settings) -> None:
    engine = create_engine(settings, application="test", command_timeout=None)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()
    async with _session(settings) as session:
        assert await session.fetch(INVALID) == []


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))
