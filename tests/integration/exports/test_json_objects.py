"""Objects that the worker makes for ``json`` and ``ndjson`` are those of ``row_to_json``, byte for byte."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column, Kind, quote_name
from stream_app.exports.formats import json as json_format
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.json import JsonFormat, NdjsonFormat
from stream_app.exports.formats.json_objects import PIECE_BYTES, Form, ObjectWriter
from stream_app.exports.masks.registry import masked_column
from stream_app.exports.queries.row_query import CopyStatement, row_query
from stream_app.exports.sources.message_too_long import MessageTooLong
from stream_app.exports.sources.source import Source
from streaming_exporter.events import ExportRequest, Options
from tests.integration.exports.selecting import described
from tests.integration.exports.test_type_matrix import BUILT_IN
from tests.integration.exports.type_shapes import Shape, Values, constant, scalar, shapes_of, values

QUICK: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}

NAMES = [
    "%",
    "%s%%b",
    '"',
    "\\N",
    "a\tb",
    "\\",
    "ü",
    "😀",
    "a:b",
    "null",
    "\x01\x7f",
    "x" * 63,
    "'",
    "{}",
    " ",
]


async def both_ways(
    source: Source, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, output: type[NdjsonFormat]
) -> tuple[bytes, bytes]:
    """Return the file with the objects of ``row_to_json``, and the file with the worker's."""
    table = await described(source, dataset)
    request = ExportRequest.parse({"user_id": "u", "export_type": "t", "format": output.name, "scope": "all"})
    rows = row_query(table, request)
    files = []
    for flat in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(json_format, "is_flat", lambda _, flat=flat: flat)
            written = output()
            statement = CopyStatement.of(rows, written, request.options)
            assert ('row_to_json("row".*)' in statement.sql) is not flat
            chunks: list[bytes] = []

            async def keep(chunk: bytes, chunks: list[bytes] = chunks) -> None:
                chunks.append(chunk)

            async with source.snapshot("test", search_path=table.search_path) as snapshot:
                count = await snapshot.copy(statement.sql, statement.copy, keep)
            tally = Tally()
            document = Document("t", rows.columns, Options(), datetime(2026, 1, 31, tzinfo=UTC))
            files.append(b"".join(written.frame(iter(chunks), document, tally)))
            assert tally.rows == count
    return files[0], files[1]


@pytest.fixture
async def shapes(database: asyncpg.Connection, schema: str) -> list[Shape]:
    """Every built-in type, alone and in other types."""
    found = [
        shape
        for name, orderable in await database.fetch(BUILT_IN)
        for shape in shapes_of(name, orderable=orderable)
    ]
    await database.execute(";".join(statement for shape in found for statement in shape.ddl))
    return found


async def make(
    database: asyncpg.Connection, names: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Make the view ``t`` of SQL expressions."""

    def selected(row: Sequence[str]) -> str:
        cells = zip(row, types, names, strict=True)
        return "SELECT " + ", ".join(
            f"({value})::{kind} AS {quote_name(name)}" for value, kind, name in cells
        )

    empty = selected(["NULL"] * len(names)) + " WHERE false"
    await database.execute(
        f"DROP VIEW IF EXISTS t; CREATE VIEW t AS {' UNION ALL '.join([empty, *map(selected, rows)])}"
    )


async def compare_types(
    source: Source,
    database: asyncpg.Connection,
    schema: str,
    shapes: list[Shape],
    monkeypatch: pytest.MonkeyPatch,
    drawn: Values,
) -> None:
    """Scalars of all types, and some of the other types."""
    random = drawn.random
    chosen = [shape for shape in shapes if shape.name or random.random() < 0.4]
    random.shuffle(chosen)
    names = [f"c{number}" for number in range(len(chosen))]
    rows = [[drawn.expression(shape) for shape in chosen] for _ in range(random.randrange(1, 5))]
    await make(database, names, [shape.sql for shape in chosen], rows)
    by_postgres, by_worker = await both_ways(
        source, Dataset(name="t", table=f"{schema}.t"), monkeypatch, JsonFormat
    )
    assert by_worker == by_postgres


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=2, **QUICK)
@given(drawn=values(4))
async def test_every_type(
    source: Source,
    database: asyncpg.Connection,
    schema: str,
    shapes: list[Shape],
    monkeypatch: pytest.MonkeyPatch,
    drawn: Values,
) -> None:
    """V2, V20: the types of the round-trip matrix."""
    await compare_types(source, database, schema, shapes, monkeypatch, drawn)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.unmeasured  # the test above reaches the same lines
@pytest.mark.slow
@settings(max_examples=7, **QUICK)
@given(drawn=values(4))
async def test_every_type_explored(
    source: Source,
    database: asyncpg.Connection,
    schema: str,
    shapes: list[Shape],
    monkeypatch: pytest.MonkeyPatch,
    drawn: Values,
) -> None:
    """The same with more values."""
    await compare_types(source, database, schema, shapes, monkeypatch, drawn)


SCALAR = st.sampled_from([
    "text", "varchar", "bpchar", "name", "int4", "int8", "oid", "numeric", "money", "float4", "float8",
    "bool", "timestamptz", "timestamp", "date", "time", "interval", "uuid", "bytea", "json", "jsonb", "inet",
])  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
NASTY_TEXT = st.text(st.sampled_from('\\N"\t\n\r\b\f\v\x01\x1f\x7f:,{}v %+é'), max_size=7)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[str], list[list[str]]]:
    """Names, types and SQL of the values."""
    kinds = draw(st.lists(SCALAR, min_size=1, max_size=7))
    unique = st.lists(st.sampled_from(NAMES) | ANY_TEXT.filter(bool), min_size=7, max_size=7, unique=True)
    names = [name.encode()[:63].decode(errors="ignore") for name in draw(unique)]
    drawn = draw(values(3))
    texts = draw(st.lists(NASTY_TEXT | ANY_TEXT, min_size=3, max_size=3))

    def value(kind: str) -> str:
        if kind in ("text", "varchar") and drawn.random.random() < 0.8:
            return constant(drawn.random.choice(texts), kind)
        return drawn.expression(scalar(kind))

    rows = [[value(kind) for kind in kinds] for _ in range(drawn.random.randrange(7))]
    return names[: len(kinds)], [f"pg_catalog.{kind}" for kind in kinds], rows


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("output", [JsonFormat, NdjsonFormat])
@settings(max_examples=25, **QUICK)
@given(table=tables())
async def test_any_table(
    source: Source,
    database: asyncpg.Connection,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
    output: type[NdjsonFormat],
    table: tuple[list[str], list[str], list[list[str]]],
) -> None:
    """Any names and values of a few columns, with NULL and without, also of a single column and no rows."""
    names, types, rows = table
    if len({name.encode() for name in names}) < len(names):
        return
    await make(database, names, types, rows)
    by_postgres, by_worker = await both_ways(
        source, Dataset(name="t", table=f"{schema}.t"), monkeypatch, output
    )
    assert by_worker == by_postgres
    assert by_worker.count(b"{") >= len(rows)


@pytest.mark.parametrize(
    ("kind", "literals"),
    {
        "text": ["", "\\N", "\\", "\\\\N", '"', '"\\N"', "\\v", "\v", "\\\v", "\x01", "a:\\N", "x", "null"],
        "json": ['{"a":\n1,\t"b":\r\n2}', '"\\\\N"', '["\\"", "\\n", "\\\\n"]', "null", ' "x" ', "1"],
        "timestamptz": ["infinity", "-infinity", "0044-03-15 11:30:00+00 BC", "2026-01-31 11:30:00.25+02"],
        "timestamp": ["infinity", "0044-03-15 11:30:00 BC", "20000-01-01", "2026-01-31 11:30:00.25"],
        "numeric": ["NaN", "-Infinity", "Infinity", "1.50", "-0.000", "1e300"],
        "float8": ["NaN", "-Infinity", "-0", "1e-300", "1e+20"],
        "bool": ["t", "f"],
        "date": ["infinity", "0044-03-15 BC", "2026-01-31"],
    }.items(),
)
@pytest.mark.parametrize("with_null", [False, True])
async def test_values_that_are_written_in_another_way(
    source: Source,
    database: asyncpg.Connection,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    literals: list[str],
    with_null: bool,
) -> None:
    """A single column, and the same column between others; all values in one chunk, and each alone."""
    null = ["NULL"] * with_null
    alone = [[constant(text, kind), *null] for text in literals]
    for cells in ([cell for one in alone for cell in one], *alone):
        for width in (1, 3):
            names = [f"{kind}\\N%{number}" for number in range(width)]
            await make(database, names, [kind] * width, [[cell] * width for cell in cells])
            by_postgres, by_worker = await both_ways(
                source, Dataset(name="t", table=f"{schema}.t"), monkeypatch, NdjsonFormat
            )
            assert by_worker == by_postgres
            assert len(by_worker.splitlines()) == len(cells)


async def test_a_view_of_the_system(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has columns of the type ``anyarray``, which no other view can have."""
    dataset = Dataset(name="t", table="pg_catalog.pg_stats", columns=("attname", "histogram_bounds"))
    by_postgres, by_worker = await both_ways(source, dataset, monkeypatch, JsonFormat)
    assert by_worker == by_postgres


@pytest.mark.parametrize(
    ("kinds", "flat"),
    [
        ("i", True),
        ("j", False),
        ("iiiij", True),
        ("iiij", False),
        ("iiiiiiiija", True),
        ("iiiiiiija", False),
    ],
)
def test_postgres_makes_the_objects_of_rows_that_are_mostly_json(kinds: str, flat: bool) -> None:
    """COPY's text would not be cheaper there."""
    known = {"i": ("int4", Kind.INTEGER), "j": ("jsonb", Kind.JSON), "a": ("text", Kind.ARRAY)}
    columns = [Column(f"c{number}", known[kind][0], *known[kind]) for number, kind in enumerate(kinds)]
    assert json_format.is_flat(columns) is flat
    sql = str(JsonFormat().copy_select(columns, Options()).select)
    assert ("row_to_json" not in sql) is flat


@pytest.mark.parametrize(
    ("name", "label", "encoding", "flat"),
    [
        ("j", "Größe", "UTF8", False),
        ("j", "ö" * 31 + "x", "UTF8", False),
        ("j", "ö" * 32, "UTF8", True),
        ("j", "x" * 64, "UTF8", True),
        ("j", "Größe", "LATIN1", True),
        ("j", "Groesse", "LATIN1", False),
        ("Größe", "", "LATIN1", False),
    ],
)
def test_postgres_makes_the_objects_if_the_label_can_be_a_name(
    name: str, label: str, encoding: str, flat: bool
) -> None:
    column = Column(name, "jsonb", "jsonb", Kind.JSON, caption=label, encoding=encoding)
    assert json_format.is_flat([column]) is flat
    masked = replace(masked_column("last4", column), caption=label)
    assert json_format.is_flat([replace(column, name="j", caption=""), masked]) is flat


def test_large_chunks_are_written_in_pieces() -> None:
    """However large a chunk is, memory for its fields is that of a small one."""
    rows = b"".join(b"%d\tx\n" % number for number in range(300_000))
    pieces = list(ObjectWriter(["n", "t"], [Form.INTEGER, Form.TEXT], 2**20, b"\n").write(rows))
    assert max(count for _, count in pieces) < PIECE_BYTES
    assert len(pieces) > len(rows) / PIECE_BYTES - 1
    assert sum(count for _, count in pieces) == 300_000
    lines = b"".join(objects for objects, _ in pieces).splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(300_000))


@pytest.mark.parametrize(
    ("form", "field", "size"),
    [
        (Form.TEXT, b"a", 1),
        (Form.TEXT, b'"', 2),
        (Form.TEXT, rb"\v", 6),
        (Form.TEXT, b"\x01", 6),
        (Form.JSON, rb"\\", 1),
    ],
)
def test_the_limit_of_a_row_is_that_of_its_object(form: Form, field: bytes, size: int) -> None:
    """V11: an object can be six times as long as the text that PostgreSQL sends."""
    times = 2**21
    frame = len(b'{"v":""}') if form is Form.TEXT else len(b'{"v":}')
    exact = frame + times * size
    chunk = b"short\n" + field * times + b"\n"
    fits = ObjectWriter(["v"], [form], exact + 2, b"\n")
    assert sum(len(objects) for objects, _ in fits.write(chunk)) >= exact
    with pytest.raises(MessageTooLong):
        list(ObjectWriter(["v"], [form], exact - 1, b"\n").write(chunk))
