"""The context of a contender: the rows to read, the target of the file, and further measurements."""

import asyncio
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from minio import Minio

from stream_app.settings import Settings

BATCH = 5_000
"""Rows that a streaming contender fetches at a time."""

PART_SIZE = 8 * 2**20


@dataclass
class Context:
    """One export to be made.

    ``table`` is ``schema.name``. A contender that chooses its own ``key`` sets it. It writes further numbers
    for the report into ``notes``.
    """

    format: str
    table: str
    key: str
    settings: Settings = field(default_factory=Settings)
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def query(self) -> str:
        """The SQL of the rows. All contenders write them in the order in which PostgreSQL reads them."""
        return f"SELECT * FROM {self.table}"

    @property
    def dsn(self) -> str:
        return self.settings.source_dsn

    @property
    def s3_host(self) -> str:
        return urlsplit(self.settings.s3_endpoint).netloc

    @property
    def s3_name(self) -> str:
        """The access key of the store."""
        assert self.settings.s3_access_key is not None
        return self.settings.s3_access_key.get_secret_value()

    @property
    def s3_secret(self) -> str:
        assert self.settings.s3_secret_key is not None
        return self.settings.s3_secret_key.get_secret_value()

    def store(self) -> Minio:
        """Return a client, created as its documentation shows."""
        return Minio(
            self.s3_host,
            access_key=self.s3_name,
            secret_key=self.s3_secret,
            secure=False,
            region=self.settings.s3_region,
        )

    def size(self) -> int:
        """Return the bytes of the file in the store."""
        return self.store().stat_object(self.settings.s3_bucket, self.key).size or 0

    def remove(self) -> None:
        """Remove the file from the store."""
        self.store().remove_object(self.settings.s3_bucket, self.key)

    def put(self, data: bytes) -> None:
        """Upload a file that is in memory."""
        self.store().put_object(self.settings.s3_bucket, self.key, io.BytesIO(data), len(data))

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Yield a temporary file. It is uploaded at the end of the block."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "export"
            yield path
            self.store().fput_object(self.settings.s3_bucket, self.key, str(path))

    def fetch_all(self) -> list[Any]:
        """Return all rows at once, as most simple code does."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return list(await connection.fetch(self.query))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def stream(self) -> Iterator[Any]:
        """Yield the rows from a cursor, which fetches :data:`BATCH` at a time."""
        with asyncio.Runner() as runner:
            connection = runner.run(_connect(self.dsn))
            try:
                transaction = connection.transaction()
                runner.run(_started(transaction))
                cursor = runner.run(_cursor(connection, self.query))
                while rows := runner.run(cursor.fetch(BATCH)):
                    yield from rows
            finally:
                runner.run(connection.close())


async def _connect(dsn: str) -> Any:
    return await asyncpg.connect(dsn)


async def _started(transaction: Any) -> None:
    await transaction.start()


async def _cursor(connection: Any, query: str) -> Any:
    return await connection.cursor(query)
