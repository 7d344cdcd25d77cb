"""Rules of csv only: guarded formulas, NULL alone in a record, and names that look like another format."""

import csv
import io
from pathlib import Path

import asyncpg
import duckdb
import pytest

from tests.integration.exports.conftest import Export


def read(content: bytes, delimiter: str = ",") -> list[list[str]]:
    text = io.StringIO(content.decode(), newline="")
    return list(csv.reader(text, delimiter=delimiter, strict=True))


def by_duckdb(content: bytes, file: Path) -> list[tuple[object, ...]]:
    file.write_bytes(content)
    return duckdb.connect().read_csv(file, all_varchar=True, header=True, delimiter=",").fetchall()


async def fill(database: asyncpg.Connection, texts: list[str | None]) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    await database.executemany("INSERT INTO t VALUES ($1, $2)", list(enumerate(texts)))


FORMULAS = {
    "＝1+1": "'＝1+1", "－2": "'－2", "a;=1+1": "a;'=1+1", "a\t=1+1": "a\t'=1+1", "\n=1+1": "'\n'=1+1",
    "a\r\n@x": "a\r\n'@x", "=1+1": "'=1+1", "=1;=2": "'=1;'=2", "-5-3": "'-5-3", "+x": "'+x", "\tx": "'\tx",
}  # fmt: skip
NO_FORMULAS = [
    "-5",
    "+1.5e3",
    "-.5",
    "+49301234567",
    "a,=1",
    "a;b",
    "日本，＝",
    "",
    None,
    "\\075",
    "a=1",
    "'=1",
    "—",
]


async def test_formulas_are_guarded_and_numbers_are_not(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    """V6, V7: also full-width forms, and after separators and line breaks. Each value counts once."""
    await fill(database, [*FORMULAS, *NO_FORMULAS])
    exported = await export(f"{schema}.t", "csv", options={"null": "NULL"})
    expected = [*FORMULAS.values(), *("NULL" if text is None else text for text in NO_FORMULAS)]
    assert [row[1] for row in read(exported.content)[1:]] == expected
    assert exported.warnings == {"guarded_formulas": len(FORMULAS)}
    plain = await export(f"{schema}.t", "csv", options={"null": "NULL", "guard_formulas": False})
    assert [row[1] for row in read(plain.content)[1:]] == [*FORMULAS, *expected[len(FORMULAS) :]]
    assert plain.warnings == {}


NEGATIVE = {
    "point": "(-1,-0.12)", "lseg": "[(-1,-2),(-3,-4)]", "path": "((-1,-2),(-3,-4))", "box": "(1,-1),(-2,-3)",
    "line": "{-1,-2,-3}", "polygon": "((0,-1),(1,-1),(2,-1e-20))", "circle": "<(-0.1,-2),3>",
    "int4range": "[-5,-3)", "int8range": "(,-3)", "numrange": "[-Infinity,-0.5]", "floats": "[-2,-1e-05]",
    "int4multirange": "{[-5,-3),[-2,-1)}", "int8multirange": "{(,-3)}", "nummultirange": "{[-5,-.5]}",
    **dict.fromkeys(("daterange", "tsrange", "tstzrange"), "[-infinity,-infinity]"),
    **dict.fromkeys(("datemultirange", "tsmultirange", "tstzmultirange"), "{[-infinity,-infinity]}"),
}  # fmt: skip


@pytest.mark.parametrize("options", [{"delimiter": ","}, {"delimiter": "|"}, {"locale": "de-DE"}])
async def test_ranges_and_geometric_types_have_no_formulas(
    export: Export, database: asyncpg.Connection, schema: str, options: dict[str, str]
) -> None:
    """V7: of all types of the server. Their negative numbers stand behind separators."""
    known = await database.fetch(
        "SELECT typname FROM pg_type WHERE typcategory IN ('G', 'R') AND typtype IN ('b', 'r', 'm')"
        " AND typnamespace = 'pg_catalog'::regnamespace"
    )
    assert {row["typname"] for row in known} <= NEGATIVE.keys()
    values = ", ".join(f"'{value}'::{name} AS {name}" for name, value in NEGATIVE.items())
    await database.execute(
        f"CREATE TYPE floats AS RANGE (subtype = float8); CREATE TABLE t AS SELECT {values}"
    )
    guarded = await export(f"{schema}.t", "csv", options=options)
    plain = await export(f"{schema}.t", "csv", options={**options, "guard_formulas": False})
    assert guarded.content == plain.content
    assert guarded.warnings == {}
    _, row = read(guarded.content, "," if options == {"delimiter": ","} else options.get("delimiter", ";"))
    assert [value for value in row if "'" in value or "-" not in value] == []


async def test_null_alone_in_a_record_is_no_empty_line(
    export: Export, database: asyncpg.Connection, schema: str, tmp_path: Path
) -> None:
    """V18: readers skip empty lines."""
    await fill(database, ["a", None, "", None])
    exported = await export(f"{schema}.t", "csv", columns=["v"])
    assert exported.content == b'v\na\n""\n""\n""\n'
    assert len(by_duckdb(exported.content, tmp_path / "t.csv")) == len(read(exported.content)) - 1 == 4
    named = await export(f"{schema}.t", "csv", columns=["v"], options={"null": "NULL"})
    assert named.content == b'v\n"a"\nNULL\n""\nNULL\n'
    numbers = await export(f"{schema}.t", "csv", columns=["id"], filters={"id": {"lt": 2}})
    assert numbers.content == b"id\n0\n1\n"


@pytest.mark.parametrize("name", ["ID", "IDX", "ID,x"])
async def test_a_file_that_begins_with_id_is_no_sylk(
    export: Export, database: asyncpg.Connection, schema: str, name: str, tmp_path: Path
) -> None:
    """V19: Excel decides by the start of the file: the header or, without one, a value."""
    await database.execute(f"CREATE TABLE t (\"{name}\" text, v int); INSERT INTO t VALUES ('ID;P', 1)")
    content = (await export(f"{schema}.t", "csv")).content
    assert content == f'"{name}",v\nID;P,1\n'.encode()
    assert by_duckdb(content, tmp_path / "t.csv") == [("ID;P", "1")]
    headless = await export(f"{schema}.t", "csv", options={"header": False})
    assert headless.content == b'"ID;P",1\n'
