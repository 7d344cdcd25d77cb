"""Services and rows: PostgreSQL, S3, and one table for each number of rows, copied from the ledger."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from minio import Minio

from bench.kinds import Kind
from dev import sample
from dev.folder import RunFolder
from dev.postgres import READER, SOURCE, PostgresService
from dev.progress import Progress
from dev.s3 import BUCKET, S3Service, minio_binary
from dev.services import Services

WARM_UP_ROWS = 100


_SHORT_ROWS = """
    CREATE TABLE {table} AS SELECT
        i AS id, i % 1000 AS customer, (i::bigint * 7919 % 100000)::int AS product, i % 50 AS quantity,
        (i % 9999) / 100.0 AS price, 'EUR' AS currency, chr(65 + i % 26) || i % 97 AS code, i % 3 = 0 AS paid,
        i % 12 AS region, '2026-01-01'::timestamptz + i * interval '1 s' AS created_at
    FROM generate_series(1, {rows}) AS i;
    ALTER TABLE {table} ADD PRIMARY KEY (id);
    CREATE INDEX ON {table} (created_at, id);
    ANALYZE {table};
"""


def table(rows: int, kind: Kind = Kind.LEDGER) -> str:
    """Return the name of the table with ``rows`` rows."""
    return f"bench.{kind}_{rows}"


def short_rows_sql(table: str, rows: int) -> str:
    """Return the script that creates a table of ten short columns."""
    return _SHORT_ROWS.format(table=table, rows=rows)


@dataclass(frozen=True, slots=True)
class Bench:
    """The running services: ``environment`` has the variables of contenders, ``versions`` the versions."""

    environment: Mapping[str, str]
    versions: Mapping[str, str]
    store: Minio

    def remove(self, key: str) -> None:
        """Remove a file that was measured."""
        self.store.remove_object(BUCKET, key)


@contextmanager
def started(folder: Path, sizes: Iterable[int], more_sql: str = "") -> Iterator[Bench]:
    """Start PostgreSQL with a table of each size, and an S3 server, in ``folder`` until the block ends.

    ``more_sql`` creates further tables in the schema ``bench``.
    """
    for name in [name for name in os.environ if name.startswith("EXPORTER_")]:
        if name != "EXPORTER_LOCAL_MINIO":
            del os.environ[name]  # only services that are started here are measured
    run_folder, progress = RunFolder(folder), Progress()
    run_folder.open()
    services = Services(folder.absolute(), progress)
    del services.running["kafka"], services.running["smtp"]
    try:
        services.start()
        with progress.step("rows") as step:
            url = services.get(PostgresService).admin_url(SOURCE)
            version = asyncio.run(_load(url, sorted(sizes), more_sql))
            step.result = ", ".join(f"{rows:,}" for rows in sorted(sizes))
        store = services.get(S3Service)
        yield Bench(
            {**os.environ, **services.settings()},
            {"PostgreSQL": version, "S3": "MinIO" if minio_binary() else "SeaweedFS"},
            store.client(),
        )
    finally:
        services.stop()
        run_folder.close(keep_logs=False)


async def _load(url: str, sizes: list[int], more_sql: str) -> str:
    """Fill the tables; return the version of the server."""
    await sample.load(url, sizes[-1])
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE SCHEMA bench")
        for rows in (WARM_UP_ROWS, *sizes):
            name = table(rows)
            await connection.execute(f"""
                CREATE TABLE {name} AS SELECT * FROM ledger WHERE id <= {rows} ORDER BY id;
                ALTER TABLE {name} ADD PRIMARY KEY (id);
                CREATE INDEX ON {name} (created_at, id);
            """)
            await connection.execute(f"VACUUM (ANALYZE) {name}")
        if more_sql:
            await connection.execute(more_sql)
        await connection.execute(
            f"GRANT USAGE ON SCHEMA bench TO {READER}; GRANT SELECT ON ALL TABLES IN SCHEMA bench TO {READER}"
        )
        await connection.execute("CHECKPOINT")
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()
