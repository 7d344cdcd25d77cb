"""The state database counts as unavailable while it is read only."""

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.table_check import check_tables
from stream_app.settings import Settings
from streaming_exporter.errors import Outage


async def test_a_database_that_is_read_only(engine: AsyncEngine, own_settings: Settings) -> None:
    name = make_url(own_settings.database_url.get_secret_value()).database
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    await engine.dispose()
    with pytest.raises(Outage, match="read only"):
        await check_tables(engine)
