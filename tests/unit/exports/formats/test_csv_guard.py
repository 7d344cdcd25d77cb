"""Formulas in texts are guarded wherever a program can begin a new cell; other values are unchanged."""

import csv
import io
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.exports.columns import Column, DataType, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.csv import CsvFormat, FormulaGuard
from streaming_exporter.events import Options
from tests.rows import each_row

MARKER = b"\x01marker\x01"
PLAIN_NUMBER = re.compile(r"[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def guarded(rows: list[list[str]], textual: list[bool], delimiter: str = ",") -> tuple[list[list[str]], int]:
    lines = (delimiter.join(quoted(value, delimiter) for value in row) + "\n" for row in rows)
    content, _, count = FormulaGuard(textual, delimiter, MARKER)("".join(lines).encode())
    read = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter, strict=True)
    return list(read), count


def quoted(value: str, delimiter: str) -> str:
    """Return the value as COPY writes it, which quotes more values than Python's writer."""
    if value and not any(special in value for special in f'{delimiter}"\r\n'):
        return value
    return '"' + value.replace('"', '""') + '"'


@pytest.mark.parametrize("separator", [";", "\t", "|", "\n", "\r", "\r\n", ';"', '\t""', "\n\n"])
@each_row("start", [*"=+-@＝＋－＠﹦﹢﹣﹫"])
def test_a_formula_behind_a_separator_is_guarded(separator: str, start: str) -> None:
    """V6: a program that splits at the separator finds a text."""
    rows, count = guarded([["1", f"a{separator}{start}1+1", "z"]], [False, True, True])
    assert rows == [["1", f"a{separator}'{start}1+1", "z"]]
    assert count == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_file_s_own_delimiter_needs_no_guard(delimiter: str) -> None:
    """Programs that use this delimiter respect quotes, and other programs do not split there."""
    for separator in {",", ";", "\t", "|"}:
        rows, count = guarded([[f"a{separator}=1"]], [True], delimiter)
        expected = f"a{separator}=1" if separator == delimiter else f"a{separator}'=1"
        assert rows == [[expected]]
        assert count == (separator != delimiter)


@each_row("start", [*"＝＋－＠﹦﹢﹣﹫"])
@each_row("before", [[], ["1"], ["", ""], ['"', "a\nb"]])
def test_a_full_width_start_is_guarded(start: str, before: list[str]) -> None:
    """V6: in every column, quoted or not, also in the first record."""
    row = [*before, f"{start}1+1", f'{start}"1", 2']
    rows, count = guarded([row, row], [True] * len(row))
    assert rows == [[*before, f"'{start}1+1", f'\'{start}"1", 2']] * 2
    assert count == 4


def test_a_text_without_a_formula_is_unchanged() -> None:
    """V7: numbers, other columns, and texts that only look similar."""
    rows = [
        ["-5", "a;-5", "b\n+1.5e3", "c|-.5;d", "e－f", "g，h", "- i", "j; =1"],
        ["-5.25", '["a;=1"]', '{"k": "\n=1"}', "", "", "", "", ""],
    ]
    assert guarded(rows, [False, True, True, True, True, True, True, True]) == (
        [rows[0], ["-5.25", '["a;\'=1"]', '{"k": "\n\'=1"}', "", "", "", "", ""]],
        2,
    )
    assert guarded(rows, [False] * 8) == (rows, 0)


@each_row("separator", [";", "\t", "|", "\r"])
@each_row("quote", ["", '"'])
def test_a_formula_is_found_behind_many_separators(separator: str, quote: str) -> None:
    """V6: after any number of separators, and without other text."""
    value = f"{separator}{quote}=1"
    for harmless in (0, 1, 50, 5_000):
        text = f"{separator}a" * harmless + "x" * 5_000 + value
        rows, count = guarded([["1", text]], [False, True])
        assert rows == [["1", text.removesuffix("=1") + "'=1"]]
        assert count == 1


@pytest.mark.parametrize("quoted_first", [False, True])
def test_lines_are_counted(quoted_first: bool) -> None:
    """For progress, line breaks within values count too."""
    chunk = b'1,"a\nb"\n\n2,c\n' if quoted_first else b"1,a\n\n2,c\n"
    for textual in ([True, True], [False, False]):
        found = FormulaGuard(textual, ",", MARKER)(chunk)
        assert found == (chunk, chunk.count(b"\n"), 0)


def test_a_value_that_was_counted_before_is_not_counted_again() -> None:
    _, count = guarded([[f"{MARKER.decode()}'=1;=2", "x;=3"]], [True, True])
    assert count == 1


@pytest.mark.parametrize("name", ["a;=1", "＝a", "x\n@y"])
def test_names_of_columns(name: str) -> None:
    assert "'" in FormulaGuard([True], ",", MARKER).text(name)


NUMBERS = [
    ("point", "(52.5,-0.12)"),
    ("lseg", "[(-1,-2),(-3,-4)]"),
    ("box", "(1,-1),(-2,-3)"),
    ("line", "{-1,-2,-Infinity}"),
    ("path", "((-1,-2),(-3,-4e-20))"),
    ("polygon", "((0,-1),(1,-1),(2,-0.5))"),
    ("circle", "<(-0.1,-2),3>"),
    ("numrange", "[-Infinity,-0.5)"),
    ("nummultirange", "{(,-5],[-Infinity,-.5)}"),
    ("tsrange", "[-infinity,-infinity]"),
    ("vector", "[0.1,-0.3]"),
    ("cube", "(1, -2),(3, -4)"),
]
WORDS = [("textrange", '["a;=1",b)'), ("textmultirange", "{[a,-b)}"), ("pair_range", '[,"(1,""|@x"")"]')]
BOUNDS = {
    "numrange": Kind.NUMERIC,
    "nummultirange": Kind.NUMERIC,
    "tsrange": Kind.TIMESTAMP,
    "textrange": Kind.TEXT,
    "textmultirange": Kind.TEXT,
    "pair_range": Kind.OTHER,
}


def framed(types: list[tuple[str, str]], **options: Any) -> tuple[list[str], int]:
    """Return the values of one row, whose columns have these types, as the file has them."""
    columns = []
    for name, _ in types:
        bounds = DataType("bound", BOUNDS[name]) if name in BOUNDS else None
        shape = DataType(name, bounds=bounds, is_multirange="multi" in name)
        columns.append(Column(name, name, name, Kind.OTHER, shape=shape))
    chosen = Options(**options)
    line = chosen.delimiter.join(quoted(value, chosen.delimiter) for _, value in types) + "\n"
    document, tally = Document("t", tuple(columns), chosen, datetime(2026, 1, 31, tzinfo=UTC)), Tally()
    content = b"".join(CsvFormat().frame(iter([line.encode()]), document, tally)).decode()
    _, row = csv.reader(io.StringIO(content, newline=""), delimiter=chosen.delimiter, strict=True)
    return row, tally.warnings["guarded_formulas"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_numbers_within_a_value_are_no_formulas(delimiter: str) -> None:
    """V7: geometric types, ranges, vectors. A range of texts has formulas."""
    assert framed(NUMBERS, delimiter=delimiter) == ([value for _, value in NUMBERS], 0)
    row, count = framed(WORDS, delimiter=delimiter)
    for (_, value), found in zip(WORDS, row, strict=True):
        separators = {";", "\t", "|", ","} - {delimiter}
        risky = any(f"{separator}{start}" in value for separator in separators for start in "=@-")
        assert (found.replace("'", "") == value, "'" in found) == (True, risky), (value, found)
    assert count == sum("'" in found for found in row)


@each_row("value", ["ID", "ID;P", "\ufeff=1+1", "\ufeffx"])
@each_row("is_header", [False, True])
def test_the_start_of_a_file_is_a_value(value: str, is_header: bool) -> None:
    """V6, V19: as Excel and readers of the byte order mark read it."""
    name, options = value if is_header else "v", Options(header=is_header)
    column = Column(name, "text", "text", Kind.TEXT)
    document = Document("t", (column,), options, datetime(2026, 1, 31, tzinfo=UTC))
    content = b"".join(CsvFormat().frame(iter([f"{value}\n".encode()]), document, Tally()))
    assert content.startswith(b'"')
    read = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    assert next(csv.reader(read, strict=True)) == [value]


TEXTS = st.text(st.sampled_from("ab;,|\t\r\n\"'=+-@＝－1. é"), max_size=12)


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=8), delimiter=st.sampled_from(",;\t|")
)
@example(rows=[("=", '"\n=', ""), ('a;"=', "", "\n-5")], delimiter=",")
def test_any_texts(rows: list[tuple[str, str, str]], delimiter: str) -> None:
    """Only ``'`` is added, only in text columns, and no other separator reveals a formula."""
    read, count = guarded([list(row) for row in rows], [True, False, True], delimiter)
    assert len(read) == len(rows)
    changed = 0
    for row, found in zip(rows, read, strict=True):
        assert found[1] == row[1]
        for before, after in ((row[0], found[0]), (row[2], found[2])):
            changed += before != after
            assert without_guards(after, before)
            others = ";,|\t\r\n".replace(delimiter, "")
            for piece in re.split(f"[{re.escape(others)}]", after)[1:]:
                bare = piece.lstrip('"')
                assert bare[:1] not in [*"=+-@＝－"] or PLAIN_NUMBER.match(bare), (before, after)
    assert count == changed


VALUES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)


@given(
    values=st.lists(VALUES, min_size=1, max_size=6), delimiter=st.sampled_from(",;\t|"), spaces=st.booleans()
)
@example(values=[["a;=1", {";@x": [1, -2]}, '"', ";\\"]], delimiter=",", spaces=False)
@example(values=[["a", "=1", -2, "＝"]], delimiter=";", spaces=False)
def test_any_json(values: list[Any], delimiter: str, spaces: bool) -> None:
    """The value stays the same, and no other separator reveals a formula."""
    separators = (", ", ": ") if spaces else (",", ":")
    texts = [json.dumps(value, ensure_ascii=False, separators=separators) for value in values]
    lines = "".join(f"1{delimiter}{quoted(text, delimiter)}\n" for text in texts)
    guard = FormulaGuard([True, False], delimiter, MARKER, json=[False, True])
    content, _, count = guard(lines.encode())
    read = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter, strict=True)
    found = [row[1] for row in read]
    assert [json.loads(text) for text in found] == values
    assert sum(before != after for before, after in zip(texts, found, strict=True)) == count
    others = ";,|\t\r\n".replace(delimiter, "")
    for text in found:
        for piece in re.split(f"[{re.escape(others)}]", text)[1:]:
            bare = piece.lstrip('"')
            assert bare[:1] not in [*"=+-@＝－"] or PLAIN_NUMBER.match(bare), text


def test_json_with_very_many_strings_takes_linear_time() -> None:
    """A copy of the cell for each of its strings would take eight seconds."""
    text = json.dumps(["a;=1"] + ["b"] * 250_000, separators=(",", ":"))
    chunk = f"{quoted(text, ',')}\n".encode()
    began = time.process_time()
    FormulaGuard([False], ",", MARKER, json=[True])(chunk)
    assert time.process_time() - began < 2.5


@each_row("text", ["1", "1.", ".1", "-1", "1e", "]", '"', ";", ";-1", ";=", "\r", "＝", "\\"])
@each_row("start", ["", ";", ";-", ";-1", ";=", ";-1e"])
def test_any_long_value_takes_linear_time(start: str, text: str) -> None:
    """A pattern that goes back needs hours for a million digits."""
    cell = f"{start}{text * (40_000 // len(text))}x"
    chunk = f"{quoted(cell, ',')},{quoted(json.dumps([cell]), ',')}\n".encode()
    began = time.process_time()
    FormulaGuard([True, False], ",", MARKER, json=[False, True])(chunk)
    assert time.process_time() - began < 5


def without_guards(after: str, before: str) -> bool:
    """Return whether ``after`` is ``before`` with only ``'`` inserted."""
    left = iter(after)
    return all(character in left for character in before) and len(after) - len(before) == (
        after.count("'") - before.count("'")
    )
