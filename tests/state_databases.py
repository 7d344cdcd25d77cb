"""State databases of tests. A migrated one is emptied after its test and used again, which saves time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
from pydantic import SecretStr

from dev.postgres import STATE
from dev.stack import Stack
from stream_app.settings import Settings

TEMPLATE = "test_template"
"""A migrated database without rows, which is made when the stack of the session starts."""

MOST_ROWS = 1_000
"""A database in which a test has left more rows is dropped: they would make it slower for other tests."""

_OWN = 16_384
"""The lowest object id that does not belong to PostgreSQL itself, whose thousands of rows no test changes."""

_CATALOGS = (
    f"pg_attribute WHERE attrelid >= {_OWN}", "pg_class", f"pg_constraint WHERE oid >= {_OWN}",
    "pg_extension", f"pg_index WHERE indexrelid >= {_OWN}", "pg_namespace", f"pg_proc WHERE oid >= {_OWN}",
    f"pg_rewrite WHERE oid >= {_OWN}", f"pg_trigger WHERE oid >= {_OWN}", f"pg_type WHERE oid >= {_OWN}",
)  # fmt: skip

_SCHEMA = (
    "SELECT concat_ws(' ', "
    + ", ".join(f"(SELECT (count(*), max(xmin::text::bigint))::text FROM {name})" for name in _CATALOGS)
    + ", (SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
    "   WHERE datname = current_database())"
    # Statistics of rows that are gone would change the plans of the next test. Autovacuum makes them, too.
    f", (SELECT count(*) FROM pg_statistic WHERE starelid >= {_OWN}))"
)
"""A text that is another one after a change of tables, indexes, triggers, functions, types or settings.

Also after statistics were made of a table, which stay when its rows are removed.
"""

_DISCONNECT = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

_TABLES = """
    SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""


def with_database(settings: Settings, name: str) -> Settings:
    """Return the settings with another state database on the same server."""
    url = settings.database_url.get_secret_value().rpartition("/")[0]
    return settings.model_copy(update={"database_url": SecretStr(f"{url}/{name}")})


async def create_database(stack: Stack, name: str, template: str = "template1") -> None:
    """Create a state database as a copy of ``template``; copying files is faster than writing WAL here."""
    await _execute(stack, f"CREATE DATABASE {name} OWNER {STATE} TEMPLATE {template} STRATEGY file_copy")


@asynccontextmanager
async def database(stack: Stack, settings: Settings) -> AsyncIterator[Settings]:
    """Create an empty state database, without tables, for the block."""
    name = f"test_{uuid4().hex}"
    await create_database(stack, name)
    yield with_database(settings, name)
    await _drop(stack, name)


class StateDatabases:
    """Copies of a migrated database for one test each.

    After its test a database loses all connections and rows. It is dropped instead if the test has changed
    its schema or left many rows, or if the planner has statistics of them.
    """

    def __init__(self, stack: Stack, settings: Settings, template: str) -> None:
        self._stack = stack
        self._settings = settings
        self._template = template
        self._free: list[str] = []
        self._schema = ""
        self._filled = ""
        """A statement that returns the tables with rows. Most tests leave rows in few of them."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Settings]:
        """Return settings with a database that only the block uses."""
        name = self._free.pop() if self._free else await self._create()
        yield with_database(self._settings, name)
        if await self._is_restored(name):
            self._free.append(name)
        else:
            await _drop(self._stack, name)

    async def _create(self) -> str:
        name = f"test_{uuid4().hex}"
        await create_database(self._stack, name, self._template)
        if not self._schema:
            connection = await asyncpg.connect(self._stack.postgres.admin_url(name))
            self._schema = await connection.fetchval(_SCHEMA)
            tables = [table for (table,) in await connection.fetch(_TABLES)]
            self._filled = " UNION ALL ".join(
                f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables
            )
            await connection.close()
        return name

    async def _is_restored(self, name: str) -> bool:
        """Remove what a test has left; return whether the database is as before the test."""
        connection = await asyncpg.connect(self._stack.postgres.admin_url(name))
        try:
            await connection.execute(_DISCONNECT)
            if await connection.fetchval(_SCHEMA) != self._schema:
                return False
            await connection.execute("SET session_replication_role = replica")  # no foreign keys, no triggers
            rows = 0
            for (table,) in await connection.fetch(self._filled):
                rows += int((await connection.execute(f"DELETE FROM {table}")).split()[1])
                # Otherwise the rows of the next test have places between them, in another order.
                await connection.execute(f"VACUUM {table}")
            return rows <= MOST_ROWS
        finally:
            await connection.close()


async def _drop(stack: Stack, name: str) -> None:
    await _execute(stack, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(stack: Stack, statement: str) -> None:
    admin = await asyncpg.connect(stack.postgres.admin_url())
    try:
        await admin.execute(statement)
    finally:
        await admin.close()
