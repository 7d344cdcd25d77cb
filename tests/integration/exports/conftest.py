"""Exports of tables of a test through the whole pipeline: PostgreSQL, format, S3."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import urllib3

from stream_app.datasets.models import Dataset
from stream_app.exports.catalog import Catalog
from stream_app.exports.formats.base import Format
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.source import Source
from stream_app.exports.task import ExportLimits, ExportProgress, ExportResult, ExportTask
from stream_app.settings import Settings
from stream_app.storage.listing import new_key_suffix, object_key
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest


@dataclass(frozen=True)
class Exported:
    """A finished file as users download it."""

    content: bytes
    data: ExportResult

    @property
    def warnings(self) -> dict[str, int]:
        assert self.data.manifest is not None
        return self.data.manifest["warnings"]  # type: ignore[no-any-return]


Export = Callable[..., Awaitable[Exported]]


@pytest.fixture
async def database(source_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the source database, with the session settings of the service."""
    connection = await asyncpg.connect(source_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def schema(database: asyncpg.Connection) -> AsyncIterator[str]:
    """A separate schema for the test, which the service can read."""
    name = f"test_{uuid4().hex[:12]}"
    await database.execute(f'CREATE SCHEMA "{name}"; SET search_path TO "{name}"')
    await database.execute(f'GRANT USAGE ON SCHEMA "{name}" TO PUBLIC')
    await database.execute(f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT SELECT ON TABLES TO PUBLIC')
    yield name
    await database.execute(f'DROP SCHEMA "{name}" CASCADE')


def task_for(request: ExportRequest) -> ExportTask:
    """Return a task as the job runner creates it."""
    job_id = uuid4()
    target = partial(object_key, job_id, 1, suffix=new_key_suffix())
    return ExportTask(name=str(job_id), request=request, asked_at=datetime.now(UTC), target=target)


@pytest.fixture
def exporter_of(source: Source, storage: ObjectStore, settings: Settings) -> Callable[..., Exporter]:
    """Returns a function that builds an exporter for datasets; a test can replace its parts."""

    def build(*datasets: Dataset, formats: dict[str, Format] | None = None, **parts: Any) -> Exporter:
        defaults = {
            "sources": source,
            "catalog": Catalog(source),
            "storage": storage,
            "datasets": {dataset.name: dataset for dataset in datasets},
            "formats": formats or FORMATS,
            "limits": ExportLimits.of(settings),
            "threads": ThreadPoolExecutor(2),
        }
        return Exporter(**{**defaults, **parts})

    return build


@pytest.fixture
def export(exporter_of: Callable[..., Exporter], storage: ObjectStore) -> Export:
    """Export a table: ``await export("schema.table", "csv", filters=…)``."""

    async def run(
        table: str, format_name: str, *, dataset: Dataset | None = None, **request: Any
    ) -> Exported:
        described = dataset or Dataset(name="things", table=table)
        return await exported_by(exporter_of(described), storage, described, format_name, **request)

    return run


async def exported_by(
    exporter: Exporter, storage: ObjectStore, dataset: Dataset, format_name: str, **request: Any
) -> Exported:
    """Export a request with ``exporter``; return the file from the store."""
    wanted = ExportRequest.parse(
        {"user_id": "u", "export_type": dataset.name, "format": format_name, "scope": "all", **request}
    )
    data = await exporter.run(task_for(wanted), ExportProgress())
    link = storage.presigned_url(data.key or "", data.file_name or "", data.content_type or "")
    response = await asyncio.to_thread(urllib3.request, "GET", link, decode_content=False)
    assert response.status == 200, response.data
    return Exported(response.data, data)
