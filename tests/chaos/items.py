"""The tables that chaos exports, and readers of the rows in every format."""

import csv
import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pyarrow.parquet as pq
import zstandard
from openpyxl import load_workbook
from pypdf import PdfReader

from tests.gate import gated

USERS = 20
ROWS = 36_000
"""A CSV file of this number of rows has 10 MB, more than one part of a multipart upload."""

SLOW_ROWS_A_SECOND = 100

GATED_ROWS = 1_000
"""The number of rows of "gated", and the row at which an export waits while the gate is closed."""

TABLES = f"""
    CREATE SCHEMA chaos;
    CREATE TABLE chaos.items (
        id bigint PRIMARY KEY, owner text NOT NULL, kind text NOT NULL, amount numeric(12, 4) NOT NULL,
        sealed boolean NOT NULL, at timestamptz NOT NULL, note text NOT NULL
    );
    INSERT INTO chaos.items
    SELECT n, 'user-' || 1 + n % {USERS}, 'kind-' || n % 7, n * 1.37 + 0.0001, n % 3 = 0,
           timestamptz '2026-01-01' + n * interval '67 s',
           'note "' || n || E'", two\\nlines, ' || repeat(md5(n::text), 6)
    FROM generate_series(1, {ROWS}) n;
    CREATE VIEW chaos.slow AS
    SELECT *, pg_sleep(1.0 / {SLOW_ROWS_A_SECOND})::text AS waited FROM chaos.items ORDER BY id;
    CREATE VIEW chaos.gated AS {gated("chaos.items", at=GATED_ROWS)};
    GRANT USAGE ON SCHEMA chaos TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA chaos TO PUBLIC;
    ANALYZE chaos.items;
"""

COLUMNS = ("id", "owner", "kind", "amount", "sealed", "at", "note")
NARROW = ("id", "kind", "amount")
"""Columns that fit on one line of a PDF page."""

DATASETS = f"""
[datasets.items]
table = "chaos.items"
owner = "owner"
order = ["id"]

[datasets.slow]
table = "chaos.slow"
owner = "owner"
columns = {json.dumps(COLUMNS)}
order = []

[datasets.gated]
table = "chaos.gated"
owner = "owner"
columns = {json.dumps(COLUMNS)}
order = []
"""

BUNDLES = """
[bundles.bundled]
datasets = ["slow"]
"""
"""Entries that version 0.1 refuses."""

Row = tuple[str, ...]


def _amount(value: Any) -> str:
    return format(Decimal(str(value)).normalize(), "f")


def _time(value: Any) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


PLAIN: Mapping[str, Callable[[Any], str]] = {
    "id": lambda value: str(int(value)),
    "owner": str,
    "kind": str,
    "amount": _amount,
    "sealed": lambda value: str(value).lower(),
    "at": _time,
    "note": str,
}
"""Functions that give a value of each column the same text for all formats."""


def digest(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return the sha256 of the rows in their order."""
    plain = [PLAIN[name] for name in columns]
    total = hashlib.sha256()
    for row in rows:
        texts = [spell(value) for spell, value in zip(plain, row, strict=True)]
        total.update(json.dumps(texts).encode())
    return total.hexdigest()


class Source:
    """The rows of the database, read without code of the service."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[tuple[Any, ...], tuple[int, str]] = {}

    async def expected(self, columns: Sequence[str], last: int, owner: str | None) -> tuple[int, str]:
        """Return how many rows up to id ``last`` belong to ``owner`` (``None``: all), and their digest."""
        key = (*columns, last, owner)
        if key not in self._known:
            connection = await asyncpg.connect(self._url)
            rows = await connection.fetch(
                f"SELECT {', '.join(columns)} FROM chaos.items "
                "WHERE id <= $1 AND ($2::text IS NULL OR owner = $2) ORDER BY id",
                last,
                owner,
            )
            await connection.close()
            self._known[key] = len(rows), digest(columns, rows)
        return self._known[key]


def digest_of_file(output: str, compression: str, columns: Sequence[str], content: bytes) -> str:
    """Return the digest of the rows in an exported file."""
    if output == "csv" and content.startswith(b"PK"):
        content = _first_file(content)
    if compression == "gzip":
        content = gzip.decompress(content)
    elif compression == "zstd":
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    names, rows = READERS[output](content)
    assert names == list(columns), names
    return digest(columns, rows)


def _first_file(archive: bytes) -> bytes:
    """Return the first file in the archive of a bundle. All of them must be whole."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return opened.read(opened.namelist()[0])


Table = tuple[list[str], Iterable[Sequence[Any]]]


def _csv(content: bytes) -> Table:
    names, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    return names, rows


def _objects(objects: Sequence[dict[str, Any]]) -> Table:
    return list(objects[0]), [list(item.values()) for item in objects]


def _json(content: bytes) -> Table:
    return _objects(json.loads(content, parse_float=Decimal))


def _ndjson(content: bytes) -> Table:
    return _objects([json.loads(line, parse_float=Decimal) for line in content.splitlines()])


def _excel(content: bytes) -> Table:
    book = load_workbook(io.BytesIO(content), read_only=True)
    names, *rows = book.worksheets[0].iter_rows(values_only=True)
    book.close()
    return [str(name) for name in names], rows


def _parquet(content: bytes) -> Table:
    table = pq.read_table(io.BytesIO(content))
    return table.column_names, zip(*(column.to_pylist() for column in table.columns), strict=True)


_LINE = re.compile(r"\s*(\d+)\s+(kind-\d)\s+([\d.]+)\s*")


def _pdf(content: bytes) -> Table:
    return list(NARROW), list(_lines(content))


def _lines(content: bytes) -> Iterator[Row]:
    for page in PdfReader(io.BytesIO(content), strict=True).pages:
        for line in page.extract_text(extraction_mode="layout").splitlines():
            if found := _LINE.fullmatch(line):
                yield found.groups()


READERS: Mapping[str, Callable[[bytes], Table]] = {
    "csv": _csv,
    "json": _json,
    "ndjson": _ndjson,
    "excel": _excel,
    "parquet": _parquet,
    "pdf": _pdf,
}
