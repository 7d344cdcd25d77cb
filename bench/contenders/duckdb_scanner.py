"""DuckDB: its PostgreSQL scanner reads, its httpfs writes, with one thread for each core."""

from pathlib import Path

import duckdb
import duckdb_extension_httpfs  # type: ignore[import-untyped]
import duckdb_extension_postgres_scanner  # type: ignore[import-untyped]

from bench.context import Context

_FORMATS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}


def run(context: Context) -> None:
    with duckdb.connect() as database:
        for package in (duckdb_extension_httpfs, duckdb_extension_postgres_scanner):
            (extension,) = Path(str(package.__path__[0])).rglob("*.duckdb_extension")
            database.execute(f"LOAD '{extension}'")
        database.execute(
            f"CREATE SECRET (TYPE s3, ENDPOINT '{context.s3_host}', URL_STYLE 'path', USE_SSL false, "
            f"KEY_ID '{context.s3_name}', SECRET '{context.s3_secret}')"
        )
        database.execute(f"ATTACH '{context.dsn}' AS source (TYPE postgres, READ_ONLY)")
        target = f"s3://{context.settings.s3_bucket}/{context.key}"
        query = context.query.replace("'", "''")
        rows = f"SELECT * FROM postgres_query('source', '{query}')"
        database.execute(f"COPY ({rows}) TO '{target}' ({_FORMATS[context.format]})")
