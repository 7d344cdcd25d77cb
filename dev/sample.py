"""The sample: tables of Archive Origin, the exporter's first tenant, with generated rows.

``python -m dev.sample URL [LEDGER_ROWS]``
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import asyncpg

from dev import sample_rows
from dev.cache import UsageError

USERS = 20
"""Owners are ``user-1`` to ``user-20``."""

DATASETS = Path(__file__).with_name("datasets") / "datasets.toml"
"""The datasets file of the tables."""

_LINES_A_CHUNK = 2_000


@dataclass(frozen=True)
class Sample:
    """The number of rows of each table."""

    enrollments: int
    proofs: int
    ledger: int


async def load(
    url: str, ledger_rows: int = 20_000, *, users: int = USERS, reader: str | None = None
) -> Sample:
    """Create and fill the tables in one transaction; a million ledger rows take some ten seconds.

    Args:
        url: the source database, with a role that can create tables.
        reader: a role that is granted SELECT on them.

    Raises:
        UsageError: one of the tables exists. No table is dropped.
    """
    sizes = Sample(max(50, ledger_rows // 100), max(200, ledger_rows // 10), ledger_rows)
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await _create(connection)
            rows = {
                "enrollments": sample_rows.enrollments(sizes.enrollments, users),
                "proofs": sample_rows.proofs(sizes.proofs, sizes.enrollments, users),
                "ledger": sample_rows.ledger(sizes.ledger, users),
            }
            for table, lines in rows.items():
                await connection.copy_to_table(table, source=_chunks(lines), format="text", freeze=True)
            await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
            await connection.execute(_script("sample_indexes.sql"))
            if reader is not None:
                await connection.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{reader}"')
        await connection.execute("VACUUM (ANALYZE) enrollments, proofs, ledger")
    finally:
        await connection.close()
    return sizes


async def _create(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute(_script("sample.sql"))
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError) as error:
        raise UsageError(f"the sample needs a database without its tables: {error}") from error


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


async def _chunks(lines: Iterator[str]) -> AsyncIterator[bytes]:
    while chunk := "".join(islice(lines, _LINES_A_CHUNK)):
        yield chunk.encode()


def main(arguments: Sequence[str]) -> str | None:
    """Load the sample; return the text of an error that the caller can correct."""
    if not 1 <= len(arguments) <= 2:
        return "usage: python -m dev.sample URL [LEDGER_ROWS]"
    started = time.monotonic()
    try:
        loaded = asyncio.run(load(arguments[0], *map(int, arguments[1:])))
    except OSError as error:
        return f"error: {error}; check that PostgreSQL runs there"
    except (UsageError, ValueError, asyncpg.PostgresError) as error:
        return f"error: {error}"
    print(f"{loaded} in {time.monotonic() - started:.1f} s")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
