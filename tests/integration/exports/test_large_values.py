"""Rows that cannot be written in bounded memory are refused before they are received (V11)."""

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.formats import json_objects
from stream_app.exports.formats.registry import FORMATS
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import Export

LIMIT = 2**20
"""The limit of a row in most of these tests. The rules are in proportion to it, for all formats."""


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the limit of all formats to :data:`LIMIT`, and what is a long row in proportion to it."""
    share = json_objects.LONG_ROW / FORMATS["json"].row_bytes
    monkeypatch.setattr(json_objects, "LONG_ROW", int(share * LIMIT))
    for output in FORMATS.values():
        monkeypatch.setitem(vars(output), "row_bytes", LIMIT)


async def fill(database: asyncpg.Connection, schema: str, size: int) -> str:
    await database.execute(
        "CREATE TABLE t (at date, id int PRIMARY KEY, small text, v text, b bytea);"
        f" INSERT INTO t VALUES ('2026-01-01', 7, 'x', repeat('a', {size}), NULL),"
        f" ('2026-01-02', 8, 'y', 'short', '\\x00')"
    )
    return f"{schema}.t"


@pytest.mark.parametrize("name", FORMATS)
async def test_the_error_names_column_and_row(
    export: Export, database: asyncpg.Connection, schema: str, limited: None, name: str
) -> None:
    """V11, R19: this holds for all formats. Smaller rows are still exported."""
    table = await fill(database, schema, LIMIT + 1)
    with pytest.raises(
        Rejected, match=rf"column 'v' of the row whose id is '7' has {LIMIT + 1:,} bytes"
    ) as caught:
        await export(table, name)
    assert caught.value.code == "value_too_large"
    assert f"{LIMIT:,}" in str(caught.value)
    without = await export(table, name, columns=["at", "id", "small", "b"])
    assert without.data.row_count == 2
    assert (await export(table, name, filters={"id": 8})).data.row_count == 1


@pytest.mark.parametrize("name", FORMATS)
async def test_a_row_just_below_the_limit(
    export: Export, database: asyncpg.Connection, schema: str, name: str
) -> None:
    """V11: with the limit of the format."""
    table = await fill(database, schema, FORMATS[name].row_bytes - 1000)
    assert (await export(table, name)).data.row_count == 2


async def test_bytes_arrays_and_json_count_as_they_are_written(
    export: Export, database: asyncpg.Connection, schema: str, limited: None
) -> None:
    """V11: the limit is for the received text, not for the stored value."""
    size = LIMIT * 4 // 5  # as base64 more than the limit
    items = LIMIT * 3 // 13  # each has a comma more
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, b bytea, a text[], j jsonb);"
        f" INSERT INTO t VALUES (1, decode(repeat('00', {size}), 'hex'), NULL, NULL),"
        f" (2, NULL, array_fill('abcd'::text, ARRAY[{items}]), NULL),"
        f" (3, NULL, NULL, to_jsonb(array_fill(12345, ARRAY[{items}])))"
    )
    for number, column in ((1, "b"), (2, "a"), (3, "j")):
        with pytest.raises(Rejected, match=rf"column '{column}' of the row whose id is '{number}'"):
            await export(f"{schema}.t", "csv", filters={"id": number})


async def test_a_key_that_is_not_exported_is_not_named(
    export: Export, database: asyncpg.Connection, schema: str, limited: None
) -> None:
    """V11: hidden columns stay hidden, also in errors."""
    await fill(database, schema, LIMIT + 1)
    hidden = Dataset(name="t", table=f"{schema}.t", columns=("at", "v"))
    with pytest.raises(Rejected, match="column 'v' of a row has") as caught:
        await export("", "csv", dataset=hidden)
    assert "'7'" not in str(caught.value)


@pytest.mark.parametrize("name", ["json", "ndjson"])
@pytest.mark.parametrize(("character", "times"), [("chr(1)", LIMIT // 3), ("'\"'", LIMIT * 6 // 11)])
async def test_escapes_count(
    export: Export,
    database: asyncpg.Connection,
    schema: str,
    limited: None,
    name: str,
    character: str,
    times: int,
) -> None:
    """V11: the limit is on the object with its escapes, which PostgreSQL does not send."""
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text);"
        f" INSERT INTO t VALUES (1, repeat({character}, {times})),"
        f" (2, repeat({character}, {times // 4}))"
    )
    with pytest.raises(Rejected, match="column 'v' of the row whose id is '1'") as caught:
        await export(f"{schema}.t", name)
    # The value alone has fewer bytes than the limit.
    assert "with all its columns and escapes" in str(caught.value)
    assert caught.value.code == "value_too_large"
    assert (await export(f"{schema}.t", name, filters={"id": 2})).data.row_count == 1


LONGER: dict[str, str] = {
    "csv": "'\"'",
    "json": "chr(1)",
    "ndjson": "chr(1)",
    "excel": "chr(1)",
    "parquet": "'\\'",
    "pdf": "'\\'",
}
"""By format: a character that COPY or the format writes with more bytes."""


@pytest.mark.parametrize("more", ["", "jsonb"])
@pytest.mark.parametrize("name", FORMATS)
async def test_of_two_large_rows_the_one_that_is_too_long_is_named(
    export: Export, database: asyncpg.Connection, schema: str, limited: None, name: str, more: str
) -> None:
    """V11: it can have fewer bytes than a row that fits. With JSON columns PostgreSQL makes the objects."""
    long = LIMIT // 2 + LIMIT // 20
    others = f", j {more}, k {more}" if more else ""
    await database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, v text, b bytea{others});"
        f" INSERT INTO t (id, v) VALUES (1, repeat('a', {LIMIT - 1000})),"
        f" (2, repeat({LONGER[name]}, {long}))"
    )
    assert (await export(f"{schema}.t", name, filters={"id": 1})).data.row_count == 1
    with pytest.raises(Rejected, match="column 'v' of the row whose id is '2'"):
        await export(f"{schema}.t", name)


@pytest.mark.parametrize("name", ["csv", "parquet"])
async def test_bytes_can_be_longer_than_a_larger_text(
    export: Export, database: asyncpg.Connection, schema: str, limited: None, name: str
) -> None:
    """V11: base64 and hexadecimal digits have more bytes than the value."""
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, b bytea);"
        f" INSERT INTO t VALUES (1, repeat('a', {LIMIT - 1000}), NULL),"
        f" (2, NULL, decode(repeat('00', {LIMIT * 4 // 5}), 'hex'))"
    )
    with pytest.raises(Rejected, match="column 'b' of the row whose id is '2'"):
        await export(f"{schema}.t", name)
