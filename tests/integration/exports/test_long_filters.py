"""Lists of values reach PostgreSQL unchanged, with any length and any characters."""

import asyncpg
import pytest

from stream_app.exports.filters.conditions import MAX_VALUES
from tests.integration.exports.conftest import Export

ODD = [
    "a",
    "",
    " ",
    "NULL",
    "null",
    '"',
    "'",
    "\\",
    '\\"',
    "{",
    "}",
    "{}",
    ",",
    "a,b",
    "%",
    ":b",
    "\n",
    "\t",
    "é",
]


@pytest.fixture
async def words(database: asyncpg.Connection, schema: str) -> str:
    await database.execute("CREATE TABLE words (id bigint PRIMARY KEY, word text)")
    await database.copy_records_to_table("words", schema_name=schema, records=list(enumerate(ODD)))
    await database.execute("INSERT INTO words VALUES (-1, NULL)")
    return f"{schema}.words"


@pytest.mark.parametrize(("operator", "kept"), [("in", 0), ("not_in", 1)])
async def test_unusual_texts_are_found(export: Export, words: str, operator: str, kept: int) -> None:
    exported = await export(words, "csv", filters={"word": {operator: ODD[::2]}}, columns=["id"])
    expected = [str(number) for number in range(len(ODD)) if number % 2 == kept]
    if operator == "not_in":
        expected.insert(0, "-1")  # NULL is none of them (V8)
    assert sorted(exported.content.decode().split()[1:], key=int) == expected  # there is no default order


async def test_the_largest_allowed_list(export: Export, database: asyncpg.Connection, schema: str) -> None:
    rows = 2 * MAX_VALUES
    await database.execute(
        f"CREATE TABLE numbers AS SELECT n::bigint AS id FROM generate_series(1, {rows}) AS n"
    )
    even = list(range(2, rows + 1, 2))
    for operator in ("in", "not_in"):
        exported = await export(f"{schema}.numbers", "csv", filters={"id": {operator: even}})
        assert exported.data.row_count == MAX_VALUES
