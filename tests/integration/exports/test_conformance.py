"""One suite for all formats: independent readers find the values of the database in the files.

What only one format does (options, sheets, pages, types of its own) is tested beside it.
"""

import csv
import io
import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import fastexcel
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from pypdf import PdfReader

from dev.sample import DATASETS
from stream_app.datasets.file import load_datasets
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.registry import FORMATS
from stream_app.plugins.conformance.cases import NAMES, TEXTS
from tests.integration.exports.conftest import Export

Cell = Any
Table = tuple[list[str], list[tuple[Cell, ...]]]

NULL = "<not-a-text>"

SAMPLE = load_datasets(DATASETS).datasets

TABLES: dict[str, list[str | None]] = {
    case: TEXTS[case] for case in ("no rows", "one row", "all null", "long values")
}
"""Texts of one table: those cases alone that are about the whole table, and all others together."""
TABLES["others"] = [text for case, texts in TEXTS.items() if case not in TABLES for text in texts]


def read_csv(content: bytes) -> Table:
    names, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    return names, [tuple(None if cell == NULL else cell for cell in row) for row in rows]


def read_json(content: bytes) -> Table:
    return _of_objects(json.loads(content))


def read_ndjson(content: bytes) -> Table:
    return _of_objects([json.loads(line) for line in content.decode().split("\n")[:-1]])


def read_excel(content: bytes) -> Table:
    """Read a workbook with openpyxl, and with calamine if all cells are text."""
    names, *rows = load_workbook(io.BytesIO(content)).worksheets[0].iter_rows(values_only=True)
    sheet = fastexcel.read_excel(content).load_sheet(0, header_row=None, dtypes="string")
    other_names, *others = (tuple(row.values()) for row in sheet.to_arrow().to_pylist())
    assert other_names == names
    texts = [all(cell is None or isinstance(cell, str) for cell in row[1:]) for row in rows]
    return [str(name) for name in names], [
        (row[0], *other[1:]) if plain else row for row, other, plain in zip(rows, others, texts, strict=True)
    ]


def read_parquet(content: bytes) -> Table:
    table = pq.read_table(io.BytesIO(content))
    return table.column_names, [tuple(row.values()) for row in table.to_pylist()]


def _of_objects(objects: Sequence[dict[str, Cell]]) -> Table:
    names = list(objects[0]) if objects else []
    assert all(list(item) == names for item in objects)
    return names, [tuple(item.values()) for item in objects]


@dataclass(frozen=True)
class Reading:
    """The reader of a format. ``shows`` returns the expected form of a text."""

    read: Callable[[bytes], Table]
    shows: Callable[[str | None], Cell] = lambda text: text
    options: dict[str, Any] | None = None
    names_when_empty: bool = True


READINGS = {
    "csv": Reading(read_csv, options={"null": NULL, "guard_formulas": False}),
    "json": Reading(read_json, names_when_empty=False),
    "ndjson": Reading(read_ndjson, names_when_empty=False),
    "excel": Reading(read_excel, lambda text: None if text is None else text[:32_767]),
    "parquet": Reading(read_parquet),
}


async def fill(database: asyncpg.Connection, texts: Sequence[str | None]) -> None:
    await database.execute("CREATE TABLE texts (id int PRIMARY KEY, value text, again text)")
    await database.executemany("INSERT INTO texts VALUES ($1, $2, $2)", list(enumerate(texts)))


@pytest.fixture(params=sorted(READINGS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_format_has_a_reading() -> None:
    assert READINGS.keys() | {"pdf"} == FORMATS.keys()


@pytest.mark.parametrize("case", TABLES)
async def test_texts(export: Export, database: asyncpg.Connection, schema: str, name: str, case: str) -> None:
    texts, reading = TABLES[case], READINGS[name]
    await fill(database, texts)
    exported = await export(f"{schema}.texts", name, options=reading.options or {})
    names, rows = reading.read(exported.content)
    assert names == (["id", "value", "again"] if texts or reading.names_when_empty else [])
    assert [row[1:] for row in rows] == [(reading.shows(text),) * 2 for text in texts]
    assert [int(row[0]) for row in rows] == list(range(len(texts)))
    assert exported.data.row_count == len(texts)
    assert exported.data.file_size == len(exported.content)


async def test_names(export: Export, database: asyncpg.Connection, schema: str, name: str) -> None:
    columns = ", ".join('"' + column.replace('"', '""') + '" text' for column in NAMES)
    await database.execute(
        f"CREATE TABLE named (id int PRIMARY KEY, {columns}); INSERT INTO named VALUES (7)"
    )
    reading = READINGS[name]
    names, rows = reading.read((await export(f"{schema}.named", name, options=reading.options or {})).content)
    assert names == ["id", *NAMES]
    assert [list(map(str, row)) for row in rows] == [["7", *["None"] * len(NAMES)]]


async def test_three_hundred_columns(
    export: Export, database: asyncpg.Connection, schema: str, name: str
) -> None:
    await database.execute(f"CREATE TABLE wide ({', '.join(f'c{number} int' for number in range(300))})")
    values = ", ".join(f"n * 1000 + {number}" for number in range(300))
    await database.execute(f"INSERT INTO wide SELECT {values} FROM generate_series(1, 20) n")
    names, rows = READINGS[name].read((await export(f"{schema}.wide", name)).content)
    assert names == [f"c{number}" for number in range(300)]
    assert [list(map(int, row)) for row in rows] == [
        [row * 1000 + number for number in range(300)] for row in range(1, 21)
    ]


@pytest.mark.parametrize("dataset", sorted(SAMPLE))
async def test_datasets(export: Export, database: asyncpg.Connection, name: str, dataset: str) -> None:
    """Each value equals the one of the database, for all tables of the sample."""
    described, reading = SAMPLE[dataset].model_copy(update={"order": ("id",)}), READINGS[name]
    exported = await export("", name, dataset=described, options=reading.options or {})
    expected = await database.fetch(f"SELECT * FROM {described.table} ORDER BY id")
    names, rows = reading.read(exported.content)
    assert names == list(expected[0].keys())
    assert len(rows) == len(expected) == exported.data.row_count
    for row, record in zip(rows, expected, strict=True):
        found = [like(value, cell) for value, cell in zip(record.values(), row, strict=True)]
        assert found == [comparable(value) for value in record.values()]


def comparable(value: Any) -> Any:
    """Return a value of asyncpg in a comparable form. JSON is text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.loads(value)
    return value or None if isinstance(value, str) else value


def like(value: Any, cell: Cell) -> Any:
    """Convert ``cell`` to the type of ``value``."""
    match value:
        case None:
            return cell
        case bool():
            return {"true": True, "false": False}.get(cell, cell)
        case datetime():
            moment = datetime.fromisoformat(cell) if isinstance(cell, str) else cell
            moment = moment.replace(tzinfo=UTC) if value.tzinfo and not moment.tzinfo else moment
            if moment == value.replace(microsecond=0) and (value.hour, value.minute, value.second) == (
                23,
                59,
                59,
            ):
                return value  # a workbook has no fractions in the last second of a day
            # A workbook's days are doubles, which openpyxl reads to the millisecond.
            return (
                value
                if abs(moment - value) < timedelta(milliseconds=1) and not moment.microsecond % 1000
                else moment
            )
        case bytes():
            return b64decode(cell) if isinstance(cell, str) else cell
        case date():
            return (
                date.fromisoformat(cell[:10])
                if isinstance(cell, str)
                else getattr(cell, "date", lambda: cell)()
            )
        case int():
            return int(cell)
        case Decimal() | float():
            return type(value)(str(cell))
        case list():
            return json.loads(cell) if isinstance(cell, str) else cell
        case str() if value[:1] in ("{", "[") and isinstance(cell, str):
            return json.loads(cell)
    return type(value)(cell) if isinstance(cell, str) else cell


SHORT = sorted(TEXTS.keys() - {"long values"})


@pytest.mark.parametrize("cases", [SHORT[at : at + 6] for at in range(0, len(SHORT), 6)], ids="; ".join)
async def test_texts_in_pdf(
    export: Export, database: asyncpg.Connection, schema: str, cases: list[str]
) -> None:
    """PDF has no cells to read back: each column's values must follow each other in what can be copied.

    A line is written from left to right, as it stands there, so readers give the parts of a line that runs
    leftwards in this order, and the letters of each part in the order they are read in.
    """
    texts = [text for case in cases for text in TEXTS[case]]
    await fill(database, texts)
    exported = await export(f"{schema}.texts", "pdf")
    unknown = Fonts().admit("".join(text or "" for text in texts).replace("\n", "").replace("\r", ""))
    column = "".join(on_paper(text, unknown) for text in texts)
    pages = PdfReader(io.BytesIO(exported.content), strict=True).pages
    shown = squeezed("".join(page.extract_text() for page in pages))
    assert squeezed(column) in shown
    replaced = sum((text or "").count(character) for text in texts for character in unknown - {"\t"}) * 2
    assert exported.warnings.get("replaced_characters", 0) == replaced


def on_paper(text: str | None, unknown: set[str]) -> str:
    if text is None:
        return "—"
    text = FROM_LEFT.get(text, text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    between_codes = {"\u200d": ""}  # codes are letters of the main font, which a joiner does nothing to
    return "".join(
        f"\\u{{{ord(item):x}}}" if item in unknown else between_codes.get(item, item) for item in text
    )


FROM_LEFT = {"سلام abc": "abc سلام"}
"""Texts of several parts that run leftwards: the parts as they stand on the page."""


def squeezed(text: str) -> str:
    return "".join(text.split())


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(texts=st.lists(st.none() | TEXT | st.sampled_from(["=x", "\\N", '"', "\r\n", ""]), max_size=40))
async def test_any_texts(
    export: Export, database: asyncpg.Connection, schema: str, name: str, texts: list[str | None]
) -> None:
    await database.execute("DROP TABLE IF EXISTS texts")
    await fill(database, texts)
    reading = READINGS[name]
    _, rows = reading.read((await export(f"{schema}.texts", name, options=reading.options or {})).content)
    assert [row[1] for row in rows] == [reading.shows(text) for text in texts]
