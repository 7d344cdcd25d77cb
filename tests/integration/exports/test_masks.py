"""Masks of columns: what they show of each value, of each type and in each format."""

import hashlib
import hmac
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from pypdf import PdfReader

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.columns import Kind
from stream_app.exports.masks.registry import MASKS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.rights import visible_table
from stream_app.exports.tables.source_table import SourceTable
from stream_app.keyed_hashes import derive_key
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import exported_by
from tests.integration.exports.test_conformance import READINGS

SHOWN: list[tuple[str, str | None, str | None]] = [
    ("email", "jane.doe@example.com", "j***@example.com"),
    ("email", "jo@example.com", "***@example.com"),
    ("email", "j@example.com", "***@example.com"),
    ("email", "öäü@example.com", "ö***@example.com"),
    ("email", "jane@sub.example.co.uk", "j***@sub.example.co.uk"),
    ("email", "", "***"),
    ("email", "@", "***"),
    ("email", "jane", "***"),
    ("email", "@example.com", "***"),
    ("email", "jane@", "***"),
    ("email", "jane@localhost", "***"),
    ("email", "jane@secret@example.com", "***"),
    ("email", "Jane Doe <jane@example.com>", "***"),
    ("email", "jane@example.com\nsecret", "***"),
    ("email", "jane@exämple.com", "***"),
    ("email", "jane@example..com", "***"),
    ("email", None, None),
    ("last4", "4111111111111234", "****1234"),
    ("last4", "12345678", "****5678"),
    ("last4", "1234567", "****"),
    ("last4", "1234", "****"),
    ("last4", "", "****"),
    ("last4", "ÄÖÜß日本語字", "****日本語字"),
    ("last4", "日本語", "****"),
    ("last4", "4111-1111 1111.1234  ", "****1234"),
    ("last4", "    1234", "****"),
    ("last4", "1234\n\t      ", "****"),
    ("last4", "(123)-(456)", "****"),
    ("last4", None, None),
    ("null", "jane", None),
    ("null", None, None),
    ("hash", None, None),
]


@pytest.fixture
async def keyed(settings: Settings) -> AsyncIterator[Source]:
    """A source whose hashes have a key of the test."""
    secret = SecretStr("a secret of the test with 32 characters")
    opened = Source(settings.model_copy(update={"link_secret": secret}), connections=3)
    yield opened
    await opened.close()


async def _table(source: Source, table: str, masks: dict[str, str], **options: Any) -> SourceTable:
    settings = {name: ColumnSettings(mask=mask) for name, mask in masks.items()}
    dataset = Dataset(name="t", table=table, column_settings=settings, **options)
    return visible_table(await Catalog(source).table(dataset), Caller("u"))


async def _rows(source: Source, table: SourceTable, **request: Any) -> list[dict[str, Any]]:
    wanted = {"user_id": "u", "export_type": "t", "format": "csv", "scope": "all", **request}
    rows = row_query(table, ExportRequest.parse(wanted))
    async with source.snapshot("test", search_path=table.search_path, session=rows.session) as snapshot:
        return [dict(row) for row in await snapshot.fetch(render(rows.select))]


async def test_what_each_mask_shows(keyed: Source, database: asyncpg.Connection, schema: str) -> None:
    """NULL stays NULL; a short, long or malformed value is never shown whole."""
    await database.execute('CREATE TABLE t (n int, email text, last4 text, hash text, "null" text)')
    for number, (mask, value, _) in enumerate(SHOWN):
        await database.execute(f'INSERT INTO t (n, "{mask}") VALUES ($1, $2)', number, value)
    table = await _table(keyed, f"{schema}.t", {name: name for name in MASKS}, order=("n",))
    found = await _rows(keyed, table)
    for (mask, _, wanted), row in zip(SHOWN, found, strict=True):
        assert row[mask] == wanted, row


async def test_a_hash_has_a_key(keyed: Source, database: asyncpg.Connection, schema: str) -> None:
    """It is HMAC-SHA256 with a key of the deployment, so known values cannot be tried without the key."""
    await database.execute("CREATE TABLE t AS SELECT 'jane@exämple.com' AS v, 7 AS n")
    table = await _table(keyed, f"{schema}.t", {"v": "hash", "n": "hash"})
    key = derive_key("a secret of the test with 32 characters", "masked values")
    digests = [hmac.new(key, text.encode(), hashlib.sha256).hexdigest() for text in ("jane@exämple.com", "7")]
    assert await _rows(keyed, table) == [{"v": digests[0], "n": digests[1]}]


async def test_the_text_of_a_value_has_the_hash(
    keyed: Source, database: asyncpg.Connection, schema: str
) -> None:
    """Equal values of two types, and of citext, can have different texts; one expression makes them equal."""
    await database.execute(
        """CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
        CREATE VIEW t AS SELECT 'Bob@x.de'::public.citext AS a, 'bob@x.de'::public.citext AS b, 5 AS c,
            5.00::numeric(10, 2) AS d, 5::bigint AS e, lower('Bob@x.de'::public.citext::text) AS f"""
    )
    table = await _table(keyed, f"{schema}.t", dict.fromkeys("abcdef", "hash"))
    (row,) = await _rows(keyed, table)
    assert row["a"] != row["b"] == row["f"]
    assert row["d"] != row["c"] == row["e"]


async def test_no_statement_has_the_key(keyed: Source, database: asyncpg.Connection, schema: str) -> None:
    """Other sessions see the text of a statement, and the server keeps it in logs and statistics."""
    await database.execute("CREATE TABLE t AS SELECT 'x' AS v")
    table = await _table(keyed, f"{schema}.t", {"v": "hash"})
    request = ExportRequest.parse({"user_id": "u", "export_type": "t", "format": "csv", "scope": "all"})
    rows = row_query(table, request)
    key = derive_key("a secret of the test with 32 characters", "masked values")
    async with keyed.snapshot("keyed", search_path=table.search_path, session=rows.session) as snapshot:
        held = await snapshot.fetch("SELECT current_setting('streaming_exporter.hash_keys') AS keys")
        inner, outer = held[0]["keys"].split(",")
        await snapshot.fetch(render(rows.select))
        running = await database.fetchval(
            "SELECT query FROM pg_stat_activity WHERE application_name = 'keyed'"
        )
    for secret in (inner, outer, key.hex()):
        assert secret not in running
        assert secret not in render(rows.select)
    assert "hash_keys" in running


async def test_without_keys_a_hash_is_null(keyed: Source, database: asyncpg.Connection, schema: str) -> None:
    """A transaction that lacks the keys must not hash without them."""
    await database.execute("CREATE TABLE t AS SELECT 'x' AS v")
    table = await _table(keyed, f"{schema}.t", {"v": "hash"})
    request = ExportRequest.parse({"user_id": "u", "export_type": "t", "format": "csv", "scope": "all"})
    sql = render(row_query(table, request).select)
    for session in (None, {"streaming_exporter.hash_keys": ""}):
        async with keyed.snapshot("with", session=session) as snapshot:
            row = await snapshot.first(sql)
            assert row is not None
            assert (row["v"] is None) == (session is None)


@pytest.mark.parametrize("secret", ["change-me", "short", "a" * 40, " "])
async def test_a_hash_needs_a_good_secret(
    secret: str, settings: Settings, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute("CREATE TABLE t AS SELECT 'x' AS v")
    source = Source(settings.model_copy(update={"link_secret": SecretStr(secret)}), connections=1)
    table = await _table(source, f"{schema}.t", {"v": "hash"})
    with pytest.raises(Rejected, match="set EXPORTER_LINK_SECRET") as error:
        await _rows(source, table)
    assert error.value.code == "missing_secret"
    await source.close()


async def test_masks_of_every_type(keyed: Source, database: asyncpg.Connection, schema: str) -> None:
    """Every mask works for every built-in type, domains that forbid NULL, arrays and composites."""
    await database.execute(
        "CREATE DOMAIN filled AS numeric(12,2) NOT NULL; CREATE TYPE mood AS ENUM ('ok', 'sad');"
        "CREATE TYPE pair AS (n int, t text)"
    )
    names = await database.fetchval(
        """SELECT array_agg(t.typname::text ORDER BY t.oid) FROM pg_type t
        LEFT JOIN pg_type e ON e.oid = t.typelem
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
        AND coalesce(e.typtype IN ('b', 'r', 'm'), true)"""
    )
    columns = [f'NULL::pg_catalog."{name}" AS "{name}"' for name in names]
    own = [
        "1.5::filled AS filled",
        "'ok'::mood AS mood",
        "'(1,a)'::pair AS pair",
        "'{A123,B456}'::char(4)[] AS few",
    ]
    await database.execute(f"CREATE TABLE t AS SELECT {', '.join([*columns, *own])}")
    await database.execute("GRANT USAGE ON TYPE filled, mood, pair TO PUBLIC")
    for mask in MASKS:
        table = await _table(
            keyed, f"{schema}.t", dict.fromkeys([*names, "filled", "mood", "pair", "few"], mask)
        )
        assert all(item.mask == mask for item in table.columns)
        assert {item.kind for item in table.columns} == {Kind.TEXT} or mask == "null"
        (row,) = await _rows(keyed, table)
        shown = {name: value for name, value in row.items() if value is not None}
        expected = {"email": {"filled": "***", "mood": "***", "pair": "***", "few": "***"},
                    "last4": {"filled": "****", "mood": "****", "pair": "****", "few": "****B456"},
                    "null": {}}  # fmt: skip
        if mask == "hash":
            assert shown.keys() == {"filled", "mood", "pair", "few"}
        else:
            assert shown == expected[mask]


async def test_an_expression_uses_other_columns(
    keyed: Source, database: asyncpg.Connection, schema: str
) -> None:
    """Its type is described, also where it uses columns that are neither exported nor asked for."""
    await database.execute(
        "CREATE TABLE t AS SELECT 1 AS id, 'u' AS owner, 'Doe' AS name, 'Jane' AS first, "
        "12.5::numeric(8,2) AS total"
    )
    masks = {"name": "left(first, 1) || '. -- ' -- the initial", "total": "round(total, -1)::numeric(6,1)"}
    for extra in ({}, {"scope": "own", "filters": {"id": 1}}):
        table = await _table(keyed, f"{schema}.t", masks, columns=("id", "name", "total"), owner="owner")
        found = await _rows(keyed, table, columns=["total", "name"], **extra)
        assert [(str(row["total"]), row["name"]) for row in found] == [("10.0", "J. -- ")]
        total = next(item for item in table.columns if item.name == "total")
        assert (total.type, total.kind, total.precision) == ("numeric(6,1)", Kind.NUMERIC, (6, 1))


async def test_an_expression_can_name_the_table_of_its_columns(
    keyed: Source, database: asyncpg.Connection, schema: str
) -> None:
    """Also where the rows of the caller are selected before the filters are calculated."""
    await database.execute("CREATE TABLE t AS SELECT 1 AS id, 'u' AS owner, 'Doe' AS name")
    await database.execute("CREATE VIEW v AS SELECT id, owner, name FROM t")
    for origin in ("t", "v", "dataset"):
        mask = {"name": ColumnSettings(mask=f"left({origin}.name, 1)")}
        fields = (
            {"query": f"select * from {schema}.t"} if origin == "dataset" else {"table": f"{schema}.{origin}"}
        )
        dataset = Dataset.model_validate({"name": "d", "owner": "owner", "column_settings": mask, **fields})
        table = visible_table(await Catalog(keyed).table(dataset), Caller("u"))
        for extra in ({"scope": "all"}, {"scope": "own"}, {"scope": "own", "filters": {"id": 1}}):
            assert [row["name"] for row in await _rows(keyed, table, **extra)] == ["D"]


@pytest.mark.parametrize(
    "mask",
    ["count(*)::text", "(count(*) over ())::text", "unnest(array[name, name])", "(missing)", "(name, id)"],
)
async def test_expressions_that_are_not_one_value_of_a_row(
    mask: str, keyed: Source, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute("CREATE TABLE t AS SELECT 1 AS id, 'Doe' AS name")
    with pytest.raises(Rejected) as error:
        await _table(keyed, f"{schema}.t", {"name": mask})
    assert error.value.code in ("query_refused", "missing_column", "unusable_query")
    assert "operators: the log has" in str(error.value)


async def test_a_mask_of_no_column_is_an_error(
    keyed: Source, database: asyncpg.Connection, schema: str
) -> None:
    """Otherwise a misspelt or renamed column would be exported as it is."""
    await database.execute("CREATE TABLE t AS SELECT 1 AS id, 'Doe' AS name")
    with pytest.raises(Rejected, match="no column that the datasets file names"):
        await _table(keyed, f"{schema}.t", {"nmae": "null"})


async def test_masked_columns_cannot_be_filtered(
    keyed: Source, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute("CREATE TABLE t AS SELECT 1 AS id, 'Doe' AS name")
    table = await _table(keyed, f"{schema}.t", {"name": "last4"})
    with pytest.raises(Rejected, match=r"filters.name: .*masked"):
        await _rows(keyed, table, filters={"name": {"prefix": "D"}})


async def test_masked_columns_in_every_format(
    keyed: Source,
    database: asyncpg.Connection,
    schema: str,
    exporter_of: Callable[..., Exporter],
    storage: ObjectStore,
) -> None:
    await database.execute(
        "CREATE TABLE t (id int, mail text, card bigint, secret date, word varchar(9));"
        "INSERT INTO t VALUES (1, 'jane@example.com', 4111111111111234, '2026-01-31', 'abcdefghi')"
    )
    masks = {"mail": "email", "card": "last4", "secret": "null", "word": "upper(left(word, 2))"}
    settings = {name: ColumnSettings(mask=mask) for name, mask in masks.items()}
    dataset = Dataset(name="t", table=f"{schema}.t", column_settings=settings)
    exporter = exporter_of(dataset, sources=keyed, catalog=Catalog(keyed))
    for name in exporter.formats:
        file = await exported_by(exporter, storage, dataset, name)
        if name == "pdf":
            text = PdfReader(io.BytesIO(file.content)).pages[0].extract_text()
            assert all(shown in text for shown in ("j***@example.com", "****1234", "AB")), text
            assert not any(secret in text for secret in ("jane", "4111", "2026-01-31", "abc")), text
        else:
            names, rows = READINGS[name].read(file.content)
            assert names == ["id", "mail", "card", "secret", "word"]
            assert [str(cell) for cell in rows[0][1:3]] == ["j***@example.com", "****1234"], name
            assert rows[0][3] in (None, ""), name
            assert rows[0][4] == "AB", name


async def test_datasets_without_masks_have_the_same_sql(
    source: Source, database: asyncpg.Connection, schema: str
) -> None:
    """Nothing of masks, sessions and queries is in the SQL of other datasets."""
    await database.execute("CREATE TABLE t (id int, name text, at timestamptz)")
    dataset = Dataset(name="t", table=f"{schema}.t", owner="name", order=("id",))
    table = await Catalog(source).table(dataset)
    assert table.masked_columns == {}
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "t", "format": "csv", "filters": {"id": {"gt": 1}}}
    )
    rows = row_query(visible_table(table, Caller.of(request)), request)
    assert rows.session == {}
    assert " ".join(render(rows.select).split()) == (
        f'SELECT "id", "name", "at" FROM "{schema}"."t" '
        "WHERE \"name\" = CAST('u' AS pg_catalog.text) AND \"id\" > CAST('1' AS pg_catalog.int4) "
        'ORDER BY "id"'
    )
