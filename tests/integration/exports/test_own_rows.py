"""Rows are a user's own if their owner, as text, is the user's id; nothing of others' rows is computed."""

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column, Kind
from stream_app.exports.queries.row_query import equals_text_conditions, reference, row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.selecting import described, selected

OWNERS: dict[str, list[str]] = {
    "smallint": ["7", "-7", "0"],
    "integer": ["7", "70", "-2147483648"],
    "bigint": ["7", "9223372036854775807"],
    "oid": ["7", "4294967295"],
    "numeric": ["7", "7.0", "7.00", "NaN", "1e3"],
    "numeric(6,2)": ["7", "7.5"],
    "real": ["7", "0.1", "1e20", "NaN"],
    "double precision": ["7", "0.1", "1e300"],
    "money": ["7", "1234.5"],
    "boolean": ["true", "false"],
    "text": ["7", "007", "Bob", "bob", " bob", "bob ", "ﬁ", ""],
    "varchar(10)": ["7", "Bob", "bob "],
    "char(6)": ["7", "Bob", "bob"],
    "name": ["7", "Bob", "x" * 63],
    '"char"': ["7", "b"],
    "citext": ["Bob", "bob2"],
    "uuid": ["00000000-0000-0000-0000-00000000000a"],
    "date": ["2026-01-31", "infinity"],
    "time": ["10:00:00"],
    "timestamp": ["2026-01-31 10:00:00"],
    "timestamptz": ["2026-01-31 10:00:00+00"],
    "interval": ["1 day", "24 hours"],
    "inet": ["10.0.0.1", "10.0.0.1/24"],
    "cidr": ["10.0.0.0/24"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bytea": ["\\x41"],
    "bit(3)": ["101"],
    "json": ["7", '"a"'],
    "jsonb": ["7", '"a"'],
    "point": ["(1,2)"],
    "int4range": ["[1,2]", "empty"],
    "text[]": ["{a,b}"],
    "mood": ["ok", "Bad"],
    "small": ["7"],
}
"""Texts of values by type. The enum and the domain are created by the test."""

SPELLINGS = [
    "7",
    "07",
    "007",
    "+7",
    " 7",
    "7 ",
    "7.0",
    "7.00",
    "٧",
    "0x7",
    "7e0",
    "-7",
    "1",
    "t",
    "TRUE",
    "yes",
    "true",
    "Bob",
    "BOB",
    "bob",
    "bob ",
    "bob\t",
    "ok",
    "OK",
    "00000000-0000-0000-0000-00000000000A",
    "{a,b}",
    "{a, b}",
    "{00000000-0000-0000-0000-00000000000a}",
    "0000000000000000000000000000000a",
    "2026-01-31T10:00:00Z",
    "NaN",
    "nan",
    "P1D",
    "PT24H",
    "10.0.0.1",
    "10.0.0.1/32",
    "$7.00",
    "x" * 64,
    "",
    "NULL",
    "null",
    "'",
    "\\",
    "99999999999",
    "fi",
    "ﬁ",
    "[1,3)",
    "[1,2]",
    "1000",
    "1e3",
    "1E+3",
]


@pytest.fixture
async def owners(
    database: asyncpg.Connection, schema: str, source: Source
) -> tuple[dict[str, SourceTable], dict[str, list[tuple[int, str]]]]:
    """A table for each type, and the texts that PostgreSQL writes for its owners."""
    await database.execute(
        "CREATE EXTENSION IF NOT EXISTS citext SCHEMA public; CREATE TYPE mood AS ENUM ('ok', 'Bad');"
        "CREATE DOMAIN small AS integer CHECK (VALUE < 100);"
    )
    await database.execute(f'SET search_path TO "{schema}", public')
    tables, texts = {}, {}
    for number, (kind, values) in enumerate(OWNERS.items()):
        name = f"owned_{number}"
        await database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, owner {kind})")
        for row, value in enumerate([*values, None]):
            literal = "NULL" if value is None else f"'{value}'::text::{kind}"
            await database.execute(f"INSERT INTO {name} VALUES ({row}, {literal})")
        tables[kind] = await described(source, Dataset(name="t", table=f"{schema}.{name}", owner="owner"))
        async with source.snapshot("test") as snapshot:
            rows = await snapshot.connection.fetch(
                f'SELECT id, owner::text AS owner FROM "{schema}".{name} WHERE owner IS NOT NULL ORDER BY id'
            )
            texts[kind] = [(row["id"], row["owner"]) for row in rows]
    return tables, texts


async def test_owners_are_compared_byte_by_byte(
    source: Source, owners: tuple[dict[str, SourceTable], dict[str, list[tuple[int, str]]]]
) -> None:
    """S4: for every type, a row is selected exactly if ``owner::text`` is the user's id."""
    tables, texts = owners
    for kind, table in tables.items():
        known = [text for _, text in texts[kind]]
        for user in dict.fromkeys([*known, *(text.upper() for text in known), *SPELLINGS]):
            found = await selected(source, table, user or "-", scope="own")
            assert found == [row for row, text in texts[kind] if text == (user or "-")], (kind, user)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
)
def test_no_user_id_causes_an_error_in_the_statement(user: str) -> None:
    """S4: an id that is no value of the type owns no rows, and is never cast to the type."""
    column = Column("owner", "integer", "int4", Kind.INTEGER, cast="pg_catalog.int4")
    (condition,) = equals_text_conditions(column, reference("owner"), user)
    assert str(condition) == "false" or str(int(user)) == user


async def test_an_index_on_the_owner_serves_the_search(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """S4: the comparison as text needs no scan of the table."""
    for kind, value in (
        ("int", "'7'"),
        ("uuid", "gen_random_uuid()"),
        ("char(6)", "'bob'"),
        ("numeric", "7.0"),
    ):
        await database.execute(
            f"DROP TABLE IF EXISTS o; CREATE TABLE o (id int PRIMARY KEY, owner {kind});"
            f"INSERT INTO o SELECT n, NULL FROM generate_series(1, 5000) n;"
            f"UPDATE o SET owner = {value} WHERE id = 1;"
            "CREATE INDEX ON o (owner); ANALYZE o"
        )
        table = await described(source, Dataset(name="t", table=f"{schema}.o", owner="owner"))
        owner = await database.fetchval("SELECT owner::text FROM o WHERE id = 1")
        plan = await _plan(source, table, owner)
        assert "Index" in plan, (kind, plan)


async def _plan(source: Source, table: SourceTable, user: str, **request: object) -> str:
    wanted = {
        "user_id": user,
        "export_type": "t",
        "format": "csv",
        "scope": "own",
        "columns": ["id"],
        **request,
    }
    sql = render(row_query(table, ExportRequest.parse(wanted)).select)
    async with source.snapshot("test", search_path=table.search_path) as snapshot:
        return "\n".join(row[0] for row in await snapshot.connection.fetch(f"EXPLAIN {sql}"))


async def test_a_filter_is_only_computed_for_own_rows(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """S7: an error that a view raises for another user's row must not reach the user."""
    await database.execute(
        """
        CREATE TABLE raw (id int PRIMARY KEY, tenant text, word text);
        INSERT INTO raw SELECT n, 'other', 'secret-of-other-tenant' FROM generate_series(1, 3000) n;
        INSERT INTO raw VALUES (0, 'me', '12');
        CREATE INDEX ON raw (tenant); ANALYZE raw;
        CREATE VIEW computed AS
            SELECT id, regexp_replace(repeat(tenant, 1), 'x', 'x') AS owner, word::int AS number FROM raw;
        CREATE VIEW indexed AS SELECT id, tenant AS owner, word::int AS number FROM raw;
        """
    )
    for name in ("computed", "indexed"):
        table = await described(source, Dataset(name="t", table=f"{schema}.{name}", owner="owner"))
        for tests in ({"eq": 12}, {"gt": 5, "lt": 13}, {"in": [12]}, {"ne": 5}, {"is_null": False}):
            assert await selected(source, table, "me", scope="own", filters={"number": tests}) == [0]
    plan = await _plan(source, table, "me", filters={"number": 12})
    assert "Index" in plan, plan


async def test_the_servers_message_is_for_operators_only(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """S7: the text of an error has its kind, but no value and no name."""
    await database.execute(
        "CREATE TABLE raw (id int, word text); INSERT INTO raw VALUES (1, 'secret-value');"
        "CREATE VIEW bad AS SELECT id, word::int AS secret_column FROM raw"
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.bad"))
    with pytest.raises(Rejected) as raised:
        await selected(source, table, filters={"secret_column": 1})
    assert "invalid text representation, SQLSTATE 22P02" in str(raised.value)
    for secret in ("secret", schema, "bad"):
        assert secret not in str(raised.value)
