"""Exports of tables of a test through the whole pipeline: PostgreSQL, format, S3."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import urllib3

from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.models import Dataset
from stream_app.exports.formats.base import Format
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources import source as source_module
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits, ExportProgress, ExportResult, ExportTask
from stream_app.settings import Settings
from stream_app.storage.listing import new_key_suffix, object_key
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest
from tests.waiting import WITHIN, patient


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
RunBundle = Callable[..., Awaitable[Exported]]

PEOPLE = 300
"""Rows of the first dataset of :func:`members`."""


@pytest.fixture(autouse=True)
def _patient_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams begin as late as they want. The product does without one that does not begin in time."""
    monkeypatch.setattr(source_module, "JOIN_SECONDS", patient(WITHIN))


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
    await database.execute(
        f'CREATE SCHEMA "{name}"; SET search_path TO "{name}"; GRANT USAGE ON SCHEMA "{name}" TO PUBLIC;'
        f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT SELECT ON TABLES TO PUBLIC'
    )
    yield name
    await database.execute(f'DROP SCHEMA "{name}" CASCADE')


def task_for(request: ExportRequest) -> ExportTask:
    """Return a task as the job runner creates it."""
    job_id = uuid4()
    target = partial(object_key, job_id, 1, suffix=new_key_suffix())
    return ExportTask(name=str(job_id), request=request, requested_at=datetime.now(UTC), target=target)


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


def bundle_of(*members: Dataset, **settings: Any) -> Bundle:
    names = [member.name for member in members]
    return Bundle.of(BundleSettings(name="everything", datasets=tuple(names), **settings), members)


def opened(exported: Exported) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(exported.content))
    assert archive.testzip() is None
    return archive


@pytest.fixture
async def members(database: asyncpg.Connection, schema: str) -> tuple[Dataset, ...]:
    """Three tables of different shapes, each with rows of user ``u`` and of others."""
    await database.execute(
        f"""
        CREATE TABLE people (id int PRIMARY KEY, user_id text, name text, since timestamptz);
        INSERT INTO people SELECT n, CASE WHEN n % 3 = 0 THEN 'v' ELSE 'u' END, 'Ä "' || n || E'\\n=1+1',
            '2026-01-01Z'::timestamptz + n * interval '1 hour' FROM generate_series(1, {PEOPLE}) n;
        CREATE TABLE amounts (id int PRIMARY KEY, user_id text, amount numeric, paid boolean, day date);
        INSERT INTO amounts SELECT n, 'u', n / 7.0, n % 2 = 0, '2026-02-01'::date + n
            FROM generate_series(1, 40) n;
        CREATE TABLE nothing (id int PRIMARY KEY, user_id text, note text);
        """
    )
    return (
        Dataset(name="people", table=f"{schema}.people", owner="user_id", order=("id",), time="since"),
        Dataset(name="amounts", table=f"{schema}.amounts", owner="user_id", order=("id",)),
        Dataset(name="nothing", table=f"{schema}.nothing", owner="user_id", order=("id",)),
    )


@pytest.fixture
def run_bundle(exporter_of: Callable[..., Exporter], storage: ObjectStore) -> RunBundle:
    """Exports a bundle: ``await run_bundle(bundle, "csv", scope="own")``."""

    async def run(
        bundle: Bundle, format_name: str, parts: Mapping[str, Any] = {}, **request: Any
    ) -> Exported:
        exporter = exporter_of(bundle, **parts)
        return await exported_by(exporter, storage, bundle, format_name, **{"scope": "own", **request})

    return run
