"""Checks whether the state database can be used."""

from functools import cache

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.db.migrations import missing
from stream_app.db.writability import find_write_fault
from streaming_exporter.errors import Outage


@cache
def _missing(revision: str | None) -> list[str]:
    return missing(revision)


async def check_tables(engine: AsyncEngine) -> None:
    """Return if the tables exist, are up to date and can be written.

    Raises:
        Retryable: they are not, or the database is away.
    """
    with outages_are_retryable():
        async with autocommitting(engine).connect() as connection:
            if fault := await find_write_fault(connection):
                raise Outage(f"state database: {fault.text}")
            revision = None
            if await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
                revision = await connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if behind := _missing(revision):
        raise Outage(f"state database: run `exporter migrate`; it lacks {', '.join(reversed(behind))}")
