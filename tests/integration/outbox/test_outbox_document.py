"""The blocks of docs/outbox.md that are about SQLAlchemy and Alembic, run as they stand."""

import asyncio
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.orm import Session

from stream_app.settings import Settings
from streaming_exporter.outbox.entries import LEASE_TABLE, TABLE
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore
from streaming_exporter.outbox.tables import ddl
from tests.documents import BLOCKS
from tests.integration.outbox.conftest import events_of, relay_of, url_for

EXAMPLE, MIGRATION, STATEMENTS = (
    block.text for block in BLOCKS if block.test == "tests/integration/outbox/test_outbox_document.py"
)


def test_the_statements_are_those_of_the_tables() -> None:
    assert ddl() == STATEMENTS


async def test_the_migration_makes_the_tables_and_the_example_requests_an_export(
    empty_settings: Settings,
) -> None:
    engine = create_engine(url_for(empty_settings, "psycopg"))

    def use() -> Any:
        migration: dict[str, Any] = {}
        exec(MIGRATION, migration)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE invoices (status text, month text)"))
            with Operations.context(MigrationContext.configure(connection)):
                migration["upgrade"]()
        names: dict[str, Any] = {"Session": Session, "engine": engine, "text": text}
        exec(EXAMPLE, names)
        return names["job_id"], migration["downgrade"]

    job_id, downgrade = await asyncio.to_thread(use)
    store = SqlAlchemyStore(engine)
    assert await relay_of(store, empty_settings).drain() == 1
    (event,) = await events_of(empty_settings, {job_id})
    assert event.source == "/services/billing"

    def undo() -> None:
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            downgrade()
        assert not {TABLE, LEASE_TABLE} & set(inspect(engine).get_table_names())

    await asyncio.to_thread(undo)
    await store.close()
