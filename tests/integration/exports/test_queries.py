"""Datasets made of a query: what works for a table works for a query of the same rows."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pypdf import PdfReader

from stream_app.datasets.models import ColumnSettings, Dataset, Parameter, Scope
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits, ExportProgress
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Outage, Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Exported, exported_by, task_for
from tests.integration.exports.test_conformance import READINGS

CREATE = """
CREATE TYPE mood AS ENUM ('ok', 'sad');
CREATE TABLE things (
    id int PRIMARY KEY, owner text, org text, name varchar(40), mail text, total numeric(12,2),
    at timestamptz, tags text[], note jsonb, mood mood, data bytea, flag bool, day date
);
INSERT INTO things SELECT
    i, 'user' || i % 3, 'org' || i % 2, 'name "' || i || '"', 'name' || i || '@example.com', i * 1.25,
    '2026-01-01'::timestamptz + i * interval '1 hour', array['a', i::text], jsonb_build_object('n', i),
    (array['ok', 'sad']::mood[])[1 + i % 2], decode(lpad(to_hex(i), 8, '0'), 'hex'), i % 2 = 0,
    '2026-01-01'::date + i
FROM generate_series(1, 300) AS i;
ANALYZE things;
"""

QUERY = """
select t.*   -- ':none' all of them;
from {schema}.things as t /* ) */
where :least <= t.id and (:word is null or t.name <> :word) and E'\\'' <> $$:x$$
"""

OPTIONS: dict[str, Any] = {
    "owner": "owner",
    "time": "at",
    "order": ("id",),
    "scopes": {"organisation": Scope(column="org", claim="org")},
    "column_settings": {
        "mail": ColumnSettings(mask="email", unmasked_for=("exports:pii",)),
        "name": ColumnSettings(label="Name of it"),
        "day": ColumnSettings(roles=("exports:days",)),
        "total": ColumnSettings(mask="round(total) + id", unmasked_for=("exports:pii",)),
    },
}

REQUESTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "columns": {"columns": ["total", "id", "mood"]},
    "filters": {"filters": {"id": {"gt": 7, "lte": 90}, "mood": "ok", "name": {"contains": '"1'}}},
    "a list": {"filters": {"id": {"in": [1, 2, 500]}, "flag": {"ne": True}}},
    "times": {"filters": {"at": {"gte": "2026-01-02", "lt": "2026-01-04T00:00:00+02:00"}}},
    "json": {"filters": {"note": {"is_null": False}}},
    "own": {"scope": "own", "user_id": "user1"},
    "own with filters": {"scope": "own", "user_id": "user1", "filters": {"id": {"lt": 100}}},
    "a scope": {"scope": "organisation", "claims": {"org": ["org1", "org7"]}},
    "no rows": {"filters": {"id": 0}},
    "unmasked": {"claims": {"roles": ["exports:pii", "exports:days"]}, "filters": {"total": {"gt": 5}}},
    "a masked filter": {"filters": {"mail": "x"}},
    "a hidden column": {"columns": ["day"]},
    "an unknown column": {"columns": ["none"]},
    "an unknown operator": {"filters": {"flag": {"gt": True}}},
    "a wrong value": {"filters": {"id": "x"}},
    "a missing claim": {"scope": "organisation"},
    "gzip": {"options": {"compression": "gzip"}},
    "labels": {"options": {"headers": "labels"}},
    "a zone": {"options": {"timezone": "Europe/Berlin"}},
    "a locale": {"options": {"locale": "de-DE"}},
    "split": {"split": {"rows": 120}},
    "split with parts": {"split": {"rows": 120}, "consistency": "part"},
}


@pytest.fixture
async def pair(database: asyncpg.Connection, schema: str) -> tuple[Dataset, Dataset]:
    """The same rows as a table and as a query."""
    await database.execute(CREATE)
    await database.execute(f'GRANT USAGE ON TYPE "{schema}".mood TO PUBLIC')
    parameters = {"least": Parameter(type="integer", default=0), "word": Parameter()}
    return (
        Dataset(name="things", table=f"{schema}.things", **OPTIONS),
        Dataset(name="things", query=QUERY.format(schema=schema), parameters=parameters, **OPTIONS),
    )


Read = Callable[..., Awaitable[Exported]]


@pytest.fixture
def read(exporter_of: Callable[..., Exporter], source: Source, storage: ObjectStore) -> Read:
    """Export a dataset whose table is described anew: ``await read(dataset, "csv", filters=…)``."""

    async def run(dataset: Dataset, format_name: str, **request: Any) -> Exported:
        exporter = exporter_of(dataset, catalog=Catalog(source))
        return await exported_by(exporter, storage, dataset, format_name, **request)

    return run


async def _outcome(exporter: Exporter, storage: ObjectStore, dataset: Dataset, **request: Any) -> Any:
    """Return what an export gives: the content and the facts of the manifest, or the error."""
    name = request.pop("format", "csv")
    wanted = {"user_id": "u", "export_type": "things", "format": name, "scope": "all", **request}
    try:
        result = await exporter.run(task_for(ExportRequest.parse(wanted)), ExportProgress())
    except Rejected as error:
        return error.code, error.field, str(error)
    facts = {key: result.manifest[key] for key in ("columns", "order", "filters", "warnings", "scope")}
    keys = [file.key for file in result.files] or [result.key]
    contents = [await asyncio.to_thread(storage.read, key) for key in keys]
    return result.row_count, [file.row_count for file in result.files], facts, contents


async def test_the_same_requests_on_a_table_and_on_a_query(
    pair: tuple[Dataset, Dataset], exporter_of: Callable[..., Exporter], storage: ObjectStore
) -> None:
    """The files, the manifests and the errors are the same."""
    exporters = [exporter_of(item) for item in pair]
    for case, request in REQUESTS.items():
        by_table, by_query = [
            await _outcome(exporter, storage, item, **request)
            for exporter, item in zip(exporters, pair, strict=True)
        ]
        if request.get("options") == {"compression": "gzip"}:
            assert by_table[0] == by_query[0] == 300
        assert by_query == by_table, case


@pytest.mark.parametrize("name", [*READINGS, "pdf"])
async def test_every_format_of_a_table_and_of_a_query(
    name: str, pair: tuple[Dataset, Dataset], read: Read
) -> None:
    files: list[Any] = []
    for dataset in pair:
        content = (await read(dataset, name)).content
        if name == "pdf":
            pages = PdfReader(io.BytesIO(content)).pages
            files.append([page.extract_text() for page in pages][1:])  # the first page has the time
        else:
            files.append(READINGS[name].read(content))
    assert files[0] == files[1]
    assert files[0]


async def test_the_parameters_of_a_query_are_in_the_manifest(
    pair: tuple[Dataset, Dataset], read: Read
) -> None:
    given = {"least": 299, "word": 'name "300"'}
    file = await read(pair[1], "csv", parameters=given, columns=["id"])
    assert file.content == b"id\n299\n"
    assert file.data.manifest["parameters"] == given
    default = await read(pair[1], "csv", filters={"id": 1})
    assert default.data.manifest["parameters"] == {"least": 0, "word": None}
    with pytest.raises(Rejected, match=r"^parameters\.least: expected a whole number"):
        await read(pair[1], "csv", parameters={"least": "1); drop table t; --"})


async def test_limits_estimates_windows_and_parts_of_a_query(
    pair: tuple[Dataset, Dataset],
    exporter_of: Callable[..., Exporter],
    source: Source,
    storage: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rows are counted and estimated as those of a table; it has no parts, and a window waits for it."""
    monkeypatch.setattr("stream_app.exports.reading.row_estimate.ESTIMATE_AFTER", 0.0)
    for dataset in pair:
        few = exporter_of(
            dataset, sources=source, catalog=Catalog(source), limits=ExportLimits(max_rows=299),
            reading=ParallelReading(2, min_bytes=0),
        )  # fmt: skip
        with pytest.raises(Rejected, match="more than 299 rows"):
            await exported_by(few, storage, dataset, "csv")
        wanted = {"user_id": "u", "export_type": "things", "format": "csv", "scope": "all"}
        task = task_for(ExportRequest.parse(wanted))
        late = {"from": "2026-01-01T00:00:00Z", "to": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        with pytest.raises(Outage, match="the job's window ends"):
            await few.run(replace(task, window=late), ExportProgress())
    split = ExportRequest.parse({**wanted, "split": {"rows": 10}})
    async with PartPlanner(few, source, 0).open(task_for(split)) as plan:
        assert plan is None


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE things RENAME note TO remark",
        "ALTER TABLE things ALTER name TYPE varchar(50)",
        "ALTER TABLE things ALTER total TYPE numeric(14,3)",
        "ALTER TABLE things DROP tags",
        "ALTER TABLE things ADD later text DEFAULT 'x'",
    ],
)
async def test_a_query_whose_table_is_changed_between_two_exports(
    change: str,
    pair: tuple[Dataset, Dataset],
    database: asyncpg.Connection,
    exporter_of: Callable[..., Exporter],
    source: Source,
    storage: ObjectStore,
    read: Read,
) -> None:
    """V15: the query is described again before the export fails or writes wrong values."""
    exporter = exporter_of(pair[1], sources=source, catalog=Catalog(source))
    unmasked = {"claims": {"roles": ["exports:pii"]}}
    before = await exported_by(exporter, storage, pair[1], "ndjson", **unmasked)
    await database.execute(change)
    after = await exported_by(exporter, storage, pair[1], "ndjson", **unmasked)
    assert after.content == (await read(pair[1], "ndjson", **unmasked)).content
    assert after.data.manifest["columns"] != before.data.manifest["columns"]


async def test_types_of_a_table_and_of_a_query(
    source: Source, database: asyncpg.Connection, schema: str
) -> None:
    """Kinds, operators, enums, arrays, lengths, types with parts. A domain counts as the type below it."""
    names = await database.fetchval(
        """SELECT array_agg(t.typname::text ORDER BY t.oid) FROM pg_type t
        LEFT JOIN pg_type e ON e.oid = t.typelem
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
        AND coalesce(e.typtype IN ('b', 'r', 'm'), true)"""
    )
    await database.execute(
        "CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE TYPE pair AS (n int, t mood);"
        "CREATE DOMAIN amount AS numeric(12,2); CREATE EXTENSION IF NOT EXISTS citext;"
    )
    own = {
        "mood": "mood", "moods": "mood[]", "pair": "pair", "amount": "amount", "amounts": "amount[]",
        "length": "varchar(7)", "padded": "char(3)", "precise": "timestamptz(3)",
        "collated": 'text COLLATE "C"',
    }  # fmt: skip
    listed = [*(f'"{name}" pg_catalog."{name}"' for name in names), *(f"{n}_ {t}" for n, t in own.items())]
    await database.execute(f"CREATE TABLE kinds ({', '.join(listed)})")
    table = await Catalog(source).table(Dataset(name="t", table=f"{schema}.kinds"))
    query = await Catalog(source).table(Dataset(name="t", query=f"select * from {schema}.kinds"))
    for name, column in table.all_columns.items():
        other = query.all_columns[name]
        if name == "amount_":
            column = replace(column, type="numeric(12,2)")
        assert replace(other, nullable=column.nullable) == column
    assert list(query.all_columns) == list(table.all_columns)


UNUSABLE = {
    "no name": ("select 1", "column 1 of its query has no name; name it with AS"),
    "the same name twice": ("select 1 as a, 2 as a", "several columns of its query have the same name"),
    "a join of tables with the same column": (
        "select * from (values (1)) as a (id), (values (2)) as b (id)",
        "several columns of its query have the same name",
    ),
    "a record": ("select 1 as id, (1, 2) as both", "has the type record; cast it"),
    "no column": ("select from pg_class", "its query has no columns"),
    "a table that is not there": (
        "select * from none.none",
        "a (schema|table) of the dataset",
    ),
    "a syntax error": ("select from where", "does not fit the database"),
    "a change": (
        "with x as (delete from {schema}.t returning *) select * from x",
        "does not fit|cannot be run",
    ),
    "several statements by a function": ("select * into u from {schema}.t", "does not fit the database"),
    "a parameter of another type": ("select id from {schema}.t where id = :p", "does not fit the database"),
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_queries_that_cannot_be_described(
    case: str, source: Source, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute("CREATE TABLE t (id int)")
    text, reason = UNUSABLE[case]
    parameters = {"p": Parameter()} if ":p" in text else {}
    dataset = Dataset(name="q", query=text.format(schema=schema), parameters=parameters)
    with pytest.raises(Rejected, match=reason) as error:
        await Catalog(source).table(dataset)
    assert schema not in str(error.value)


async def test_a_query_cannot_change_anything(database: asyncpg.Connection, schema: str, read: Read) -> None:
    """The transaction is READ ONLY, so a function that writes fails."""
    await database.execute(
        "CREATE TABLE t (id int); GRANT ALL ON t TO PUBLIC;"
        "CREATE SEQUENCE s; GRANT ALL ON SEQUENCE s TO PUBLIC;"
        f"CREATE FUNCTION add() RETURNS int LANGUAGE sql AS 'INSERT INTO {schema}.t VALUES (1) RETURNING id'"
    )
    for call in (f"{schema}.add()", f"nextval('{schema}.s')"):
        dataset = Dataset(name="q", query=f"select {call} as id")
        with pytest.raises(Rejected, match="refused the export"):
            await read(dataset, "csv")
    assert await database.fetchval("SELECT count(*) FROM t") == 0


async def test_names_are_those_of_the_roles_search_path(
    database: asyncpg.Connection, schema: str, read: Read
) -> None:
    """A name without a schema is looked up in the same schemas when it is described and when it is read."""
    await database.execute("CREATE TABLE word (word text); INSERT INTO word VALUES ('found')")
    await database.execute(f'ALTER ROLE exporter_reader SET search_path = "{schema}", public')
    try:
        dataset = Dataset(name="q", query="select word from word")
        file = await read(dataset, "csv")
        assert file.content == b"word\nfound\n"
    finally:
        await database.execute("ALTER ROLE exporter_reader RESET search_path")


async def test_a_query_whose_table_is_locked_waits(
    source: Source, database: asyncpg.Connection, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The description needs the table's lock; a job waits for it, and no failure is counted."""
    monkeypatch.setattr("stream_app.exports.tables.description.LOCK_SECONDS", 0.2)
    await database.execute("CREATE TABLE t (id int)")
    dataset = Dataset(name="q", query=f"select id from {schema}.t")
    async with database.transaction():
        await database.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Outage) as error:
            await Catalog(source).table(dataset)
        assert error.value.code == "table_locked"
    assert list((await Catalog(source).table(dataset)).all_columns) == ["id"]


async def test_row_security_below_a_query_is_known(
    source: Source, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute("CREATE TABLE t (id int); CREATE TABLE u (id int)")
    query = Dataset(name="q", query=f"select t.id from {schema}.t, (select * from {schema}.u) as x")
    assert not (await Catalog(source).table(query)).has_row_security
    await database.execute("ALTER TABLE u ENABLE ROW LEVEL SECURITY")
    assert (await Catalog(source).table(query)).has_row_security
