"""Checks that a file is complete: an independent reader counts its rows."""

import tempfile
from importlib import import_module
from pathlib import Path

import duckdb
from minio import Minio

from dev.s3 import BUCKET

_QUERIES = {
    "csv": "SELECT count(*) FROM read_csv('{}', header = true, all_varchar = true, parallel = false)",
    "json": "SELECT count(*) FROM read_json('{}', format = 'array', columns = {{id: 'BIGINT'}})",
    "ndjson": "SELECT count(*) FROM read_json('{}', format = 'nd', columns = {{id: 'BIGINT'}})",
    "parquet": "SELECT count(*) FROM read_parquet('{}')",
}


def count_rows(store: Minio, key: str, output: str) -> int | None:
    """Return the number of rows of the file at ``key``; ``None`` if no reader can count them."""
    if output not in (*_QUERIES, "excel"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        store.fget_object(BUCKET, key, str(path))
        if output == "excel":
            return _sheet_rows(path)
        (row,) = duckdb.connect().execute(_QUERIES[output].format(path)).fetchall()
        return int(row[0])


def _sheet_rows(path: Path) -> int:
    book = import_module("fastexcel").read_excel(path)
    return sum(book.load_sheet(name).total_height for name in book.sheet_names)
