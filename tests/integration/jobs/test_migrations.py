"""The migrations lead to the tables that the models describe."""

import asyncio

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from stream_app.jobs.database import create_engine
from stream_app.jobs.models import Base
from stream_app.migrations import config
from stream_app.settings import Settings


async def test_a_migrated_database_has_the_models_tables(empty_settings: Settings) -> None:
    await asyncio.to_thread(command.upgrade, config(empty_settings), "head")
    engine = create_engine(empty_settings, application="test")
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()
    await asyncio.to_thread(command.downgrade, config(empty_settings), "base")
    await asyncio.to_thread(command.upgrade, config(empty_settings), "head")


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))
