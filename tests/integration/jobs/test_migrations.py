"""The migrations lead to the tables that the models describe."""

import asyncio

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.models import Base
from stream_app.migrations import config
from stream_app.settings import Settings


async def test_a_migrated_database_has_the_models_tables(engine: AsyncEngine, settings: Settings) -> None:
    own = settings.model_copy(
        update={"database_url": type(settings.database_url)(engine.url.render_as_string(hide_password=False))}
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await asyncio.to_thread(command.upgrade, config(own), "head")
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await asyncio.to_thread(command.downgrade, config(own), "base")
    await asyncio.to_thread(command.upgrade, config(own), "head")


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))
