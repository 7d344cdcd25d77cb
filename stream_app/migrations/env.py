"""Runs migrations online, over the driver that the service uses anyway."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text

from stream_app.delivery import models as _delivery  # noqa: F401 - its tables are in the metadata
from stream_app.jobs.database import create_engine
from stream_app.jobs.models import Base
from stream_app.schedules import models as _schedules  # noqa: F401 - its tables are in the metadata

LOCK = 7_301_584_221
"""Advisory lock that serializes migrations."""


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


async def _online() -> None:
    engine = create_engine(
        context.config.attributes["settings"], application="exporter migrate", poolclass=pool.NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(_online())
