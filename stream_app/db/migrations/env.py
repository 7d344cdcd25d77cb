"""Runs migrations online, with the driver of the service.

Each migration is a transaction of its own. The lock that admits one process belongs to the session, so
steps outside of transactions keep it.
"""

import asyncio
from typing import Any

import structlog
from alembic import context
from alembic.migration import MigrationContext
from sqlalchemy import Connection, pool

from stream_app.db.engine import create_engine
from stream_app.db.migrations import NEWER, is_newer
from stream_app.jobs.models import Base
from stream_app.notifications import models as _notifications  # noqa: F401 - its tables are in the metadata
from stream_app.schedules import models as _schedules  # noqa: F401 - its tables are in the metadata

log = structlog.get_logger(__name__)

LOCK = 7_301_584_221
"""Advisory lock that serializes migrations."""

POLL_SECONDS = 0.3

UNLIMITED = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN (
        'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'
    )
"""
"""Removes the time-outs of role and database from the session: an index of a large table takes long."""


def _migrate(connection: Connection) -> None:
    current = max(MigrationContext.configure(connection).get_current_heads(), default=None)
    connection.rollback()  # ends the transaction of the read
    if is_newer(current):
        # Alembic would fail, because it has no file of this revision, and so stop a rollback of programs.
        context.config.attributes[NEWER] = current
        log.info("migration.skipped", revision=current, reason="a newer version has migrated the tables")
        return
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _lock(session: Any) -> None:
    """Take the lock, which the end of the session releases.

    The attempt is repeated. A statement that waits for the lock would hold a snapshot, and CREATE INDEX
    CONCURRENTLY of the process that holds the lock would wait for that snapshot: a deadlock.
    """
    waiting = False
    while not await session.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        if not waiting:
            log.info("migration.delayed", reason="another process migrates")
        waiting = True
        await asyncio.sleep(POLL_SECONDS)


async def _online() -> None:
    engine = create_engine(
        context.config.attributes["settings"],
        application="exporter migrate",
        command_timeout=None,
        poolclass=pool.NullPool,
    )
    try:
        async with engine.connect() as connection:
            session = (await connection.get_raw_connection()).driver_connection
            assert session is not None  # noqa: S101 - for the type checker
            await session.execute(UNLIMITED)
            await _lock(session)
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_online())
