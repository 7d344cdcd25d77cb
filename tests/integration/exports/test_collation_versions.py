"""Rows are cut at texts only if their collation has the version that their indexes were sorted by."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from stream_app.datasets.models import Dataset
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.reading.ranges import plan_ranges
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest

_DOCUMENT = Path(__file__).parents[3] / "docs" / "sources.md"
[RECORDING] = re.findall(r"```sql\n(UPDATE pg_database .*?)```", _DOCUMENT.read_text("utf-8"), re.DOTALL)
"""What the document lets a superuser run where PostgreSQL refuses ``REFRESH VERSION``."""


async def _is_cut(source: Source, table: str) -> bool:
    return await _warning(source, table) is None


async def _warning(source: Source, table: str) -> tuple[str, str | None, str | None] | None:
    """Return the collation and its two versions in the log if a table is not cut, else ``None``."""
    dataset = Dataset(name="things", table=table, order=("v", "id"))
    described = await Catalog(source).table(dataset)
    request = ExportRequest.parse({"user_id": "u", "export_type": "things", "format": "csv", "scope": "all"})
    with capture_logs() as logs:
        async with source.snapshot("test", search_path=described.search_path) as snapshot:
            ranges = await plan_ranges(snapshot, described, row_query(described, request), target_bytes=2**14)
    found = [line for line in logs if line["event"] == "source.collation_changed"]
    assert (len(ranges) > 5) is not bool(found)
    assert not any(line["event"] == "export.cutting_failed" for line in logs)
    if not found:
        return None
    [line] = found
    return line["collation"], line["recorded_version"], line["actual_version"]


async def _fill(database: asyncpg.Connection, kind: str, value: str) -> None:
    await database.execute(f"""
        DROP TABLE IF EXISTS things;
        CREATE TABLE things (v {kind}, id int PRIMARY KEY, t text);
        INSERT INTO things SELECT {value}, i, repeat('x', 90) FROM generate_series(10000, 15000) AS i;
        CREATE INDEX ON things (v, id);
        ANALYZE things
    """)


async def test_texts_with_a_collation_of_their_own(
    schema: str, database: asyncpg.Connection, source: Source
) -> None:
    """One that has changed since, one that has not, and one without a version."""
    await database.execute("""
        CREATE COLLATION same (provider = builtin, locale = 'C.UTF-8');
        CREATE COLLATION changed (provider = builtin, locale = 'C.UTF-8', version = '0');
        CREATE DOMAIN words AS text COLLATE changed;
        CREATE TYPE spans AS RANGE (subtype = text, collation = changed)
    """)
    found = {}
    for kind, value in (
        ("text COLLATE same", "i::text"),
        ('text COLLATE "C"', "i::text"),
        ("text COLLATE changed", "i::text"),
        ("words", "i::text"),
        ("spans", "spans(i::text, NULL)"),
        ("bigint", "i"),
    ):
        await _fill(database, kind, value)
        found[kind] = await _is_cut(source, f"{schema}.things")
    assert {kind for kind, is_cut in found.items() if not is_cut} == {
        "text COLLATE changed",
        "words",
        "spans",
    }


@pytest.fixture
async def changed(database: asyncpg.Connection, settings: Settings) -> AsyncIterator[str]:
    """The URL of a database whose default collation has changed since it was created."""
    name = f"test_{uuid4().hex[:12]}"
    await database.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin "
        "BUILTIN_LOCALE 'C.UTF-8' COLLATION_VERSION '0'"
    )
    yield name
    await database.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_texts_with_the_default_collation(changed: str, source_dsn: str, settings: Settings) -> None:
    """Also values that have texts: PostgreSQL compares those of jsonb by the default collation."""
    url = urlunsplit(urlsplit(source_dsn)._replace(path=f"/{changed}"))
    database = await asyncpg.connect(url)
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=2)
    found = {}
    try:
        for is_changed in (True, False):
            for kind, value in (
                ("text", "i::text"),
                ("jsonb", "to_jsonb(i::text)"),
                ('text COLLATE "C"', "i::text"),
                ("date", "'2026-01-01'::date + i"),
            ):
                await _fill(database, kind, value)
                found[kind, is_changed] = await _is_cut(source, "public.things")
            await database.execute(f"ALTER DATABASE {changed} REFRESH COLLATION VERSION")
    finally:
        await source.close()
        await database.close()
    not_cut = {kind for kind, is_cut in found.items() if not is_cut}
    assert not_cut == {("text", True), ("jsonb", True)}


@pytest.mark.parametrize("kind", ["text", "text COLLATE own"])
async def test_a_version_that_was_null_is_recorded_as_documented(
    changed: str, source_dsn: str, settings: Settings, kind: str
) -> None:
    """A server with musl knows no versions: after a change to glibc they are recorded as NULL."""
    url = urlunsplit(urlsplit(source_dsn)._replace(path=f"/{changed}"))
    database = await asyncpg.connect(url)
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=2)
    name, refresh = {
        "text": ("default", f"ALTER DATABASE {changed} REFRESH COLLATION VERSION"),
        "text COLLATE own": ("own", "ALTER COLLATION own REFRESH VERSION"),
    }[kind]
    try:
        await database.execute("CREATE COLLATION own (provider = builtin, locale = 'C.UTF-8')")
        await database.execute("UPDATE pg_collation SET collversion = NULL WHERE collname = 'own'")
        await database.execute("UPDATE pg_database SET datcollversion = NULL WHERE datname = $1", changed)
        await _fill(database, kind, "i::text")
        assert await _warning(source, "public.things") == (name, None, "1")
        with pytest.raises(asyncpg.PostgresError, match="invalid collation version change"):
            await database.execute(refresh)
        await database.execute(f"REINDEX DATABASE {changed}")
        await database.execute(RECORDING)
        assert await _warning(source, "public.things") is None
    finally:
        await source.close()
        await database.close()
