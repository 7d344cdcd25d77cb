"""How workbooks look and print: fonts, alignments, widths, heights of rows, pages."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.excel.number_formats import number_format_of
from stream_app.exports.formats.excel.sheet_layout import MAX_HEADER, shortened
from streaming_exporter.events import Options
from tests.rows import each_row
from tests.unit.exports.formats.test_excel import (
    AMOUNT,
    AS_OF,
    DATE,
    FLAG,
    MOMENT,
    NUMBER,
    TEXT,
    by_rust,
    values,
    workbook,
)

COUNT = Column("quantity", "integer", "int4", Kind.INTEGER)
KIND = Column("kind", "text", "text", Kind.TEXT)
HASH = "0123456789abcdef" * 4


def sheet(
    columns: Sequence[Column], rows: Sequence[Sequence[str | None]], last_row: int = 1_048_576, **more: Any
) -> Any:
    options = Options(**more.pop("options", {}))
    made = Document("ledger", tuple(columns), options, AS_OF, **more)
    return load_workbook(io.BytesIO(workbook(made, rows, last_row=last_row)[0])).worksheets


def test_headers_look_like_the_cells_below_them() -> None:
    """C21: the font of the header had no name and no size, and captions of numbers were at the left."""
    (page,) = sheet([NUMBER, TEXT, AMOUNT, FLAG, DATE], [["1", "x", "1.5", "1", "46350"]])
    for caption, cell in zip(page[1], page[2], strict=True):
        assert (caption.font.name, caption.font.size) == (cell.font.name, cell.font.size) != (None, None)
        assert caption.font.bold
        assert caption.alignment.horizontal == cell.alignment.horizontal
    assert [cell.alignment.horizontal for cell in page[2]] == ["right", "left", "right", "center", "right"]


@each_row(
    ("type_", "base", "kind", "expected"),
    [
        ("bigint", "int8", Kind.INTEGER, "#,##0"),
        ("numeric(12,2)", "numeric", Kind.NUMERIC, "#,##0.00"),
        ("numeric(18,6)", "numeric", Kind.NUMERIC, "#,##0.00????"),
        ("numeric(9,1)", "numeric", Kind.NUMERIC, "#,##0.0"),
        ("numeric(9,0)", "numeric", Kind.NUMERIC, "#,##0"),
        ("numeric(9,-2)", "numeric", Kind.NUMERIC, "#,##0"),
        ("money", "money", Kind.NUMERIC, "#,##0.00"),
        ("numeric", "numeric", Kind.NUMERIC, None),
        ("double precision", "float8", Kind.FLOAT, None),
    ],
)
def test_amounts_have_groups_of_digits(type_: str, base: str, kind: Kind, expected: str | None) -> None:
    """C21: all six decimals were always shown, without a separator of thousands."""
    assert number_format_of(Column("total", type_, base, kind), None) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, '"TRUE";"TRUE";"FALSE"'),
        ({"locale": "de-DE"}, '"ja";"ja";"nein"'),
        ({"locale": "de-DE", "language": "fr"}, '"oui";"oui";"non"'),
        ({"language": "xx"}, '"TRUE";"TRUE";"FALSE"'),
    ],
)
def test_truth_values_are_words_of_the_language(options: dict[str, str], expected: str) -> None:
    """As in a PDF. Excel shows its own words anyway."""
    (page,) = sheet([FLAG], [["1"]], options=options)
    assert page["A2"].number_format == expected
    assert page["A2"].value is True


def test_the_name_of_the_export_is_the_title_of_its_pages() -> None:
    """And not that of the sheet, which formulas of other workbooks name."""
    (page,) = sheet([NUMBER], [], name="Ledger October", title="Ledger")
    assert page.oddHeader.left.text == "&BLedger October"
    assert page.parent.properties.title == "Ledger October"
    assert page.title == "ledger"
    (unnamed,) = sheet([NUMBER], [], title="The ledger")
    assert unnamed.oddHeader.left.text == "&BThe ledger"


def test_values_stay_exact_whatever_is_shown() -> None:
    content, _ = workbook(
        Document("ledger", (COUNT, AMOUNT, FLAG), Options(), AS_OF), [["1234567", "1234567.123456", "0"]]
    )
    assert values(content)[1] == (1234567, 1234567.123456, False)
    assert [str(cell).lower() for cell in by_rust(content)[1]] == ["1234567", "1234567.123456", "false"]


@pytest.mark.parametrize(
    ("count", "orientation", "beside"), [(2, "portrait", 1), (7, "landscape", 1), (40, "landscape", 4)]
)
def test_sheets_print_all_columns_of_legible_size(count: int, orientation: str, beside: int) -> None:
    columns = [Column(f"c{number}", "text", "text", Kind.TEXT) for number in range(count)]
    for page in sheet(columns, [["some words of a text"] * count] * 12, last_row=7):
        assert page.sheet_properties.pageSetUpPr.fitToPage
        assert (page.page_setup.orientation, page.page_setup.paperSize) == (orientation, 9)
        assert (page.page_setup.fitToWidth, page.page_setup.fitToHeight) == (beside, 0)
        assert page.print_title_rows == "$1:$1"
        assert page.print_title_cols == ("$A:$A" if beside > 1 else None)
        assert page.oddFooter.center.text == "Page &P of &N"


@pytest.mark.parametrize(("locale", "paper"), [("en-US", 1), ("es_MX", 1), ("en-GB", 9), ("en", 9)])
def test_the_paper_is_that_of_the_locale(locale: str, paper: int) -> None:
    (page,) = sheet([NUMBER], [], options={"locale": locale})
    assert page.page_setup.paperSize == paper


@pytest.mark.parametrize(
    ("options", "zone", "number", "time"),
    [
        ({}, "times in UTC", "Page &P of &N", "as of 2026-11-24 06:30 UTC"),
        (
            {"timezone": "Europe/Berlin", "locale": "de-DE"},
            "Zeiten in Europe/Berlin", "Seite &P von &N", "Stand 24.11.2026 07:30 +01:00",
        ),
        ({"language": "fr"}, "times in UTC", "Page &P of &N", "as of 2026-11-24 06:30 UTC"),
    ],
)  # fmt: skip
def test_footers_name_zone_page_and_time(options: dict[str, str], zone: str, number: str, time: str) -> None:
    """C21: nothing said that times are in UTC."""
    (page,) = sheet([NUMBER, MOMENT], [], options=options)
    footer = page.oddFooter
    assert (footer.left.text, footer.center.text, footer.right.text) == (zone, number, time)
    (without,) = sheet([NUMBER, DATE], [], options=options)
    assert without.oddFooter.left.text is None


def test_filters_are_readable() -> None:
    """C21: filters were only JSON among the properties."""
    filters = {
        "kind": {"in": ["a", "b"]},
        "at": {"lt": "2026-02-01T00:00:00+01:00", "gte": "2026-01-01T00:00+01:00"},
    }
    options = {"timezone": "Europe/Berlin", "language": "de", "locale": "de-DE"}
    (page,) = sheet(
        [KIND, MOMENT, AMOUNT], [], filters=filters | {"amount": {"gt": 1234.5}, "x": None}, options=options
    )
    shown = "kind ist eines von a, b; at: 01.01.2026 bis 31.01.2026; amount > 1.234,5; x ist leer"
    assert page.oddHeader.right.text == shown
    assert page.parent.properties.description.startswith(f"Filter: {shown}")


@given(st.text(max_size=400), st.text(max_size=400))
def test_headers_of_pages_are_never_too_long(title: str, filters: str) -> None:
    """Excel reports a workbook with more than 255 characters as damaged."""
    head = f"&L&B{shortened(title, 80)}&R{shortened(filters, MAX_HEADER - 90)}"
    assert len(head) <= MAX_HEADER
    assert "&" not in shortened(title, 80).replace("&&", "")


def test_long_texts_are_wrapped_and_rows_are_as_high() -> None:
    """C21: hashes of 64 digits were cut by the next column. LibreOffice does not find the heights itself."""
    rows: list[list[str | None]] = [
        ["1", HASH, "short"],
        ["2", HASH, "word " * 40],
        ["3", HASH, "one\ntwo\nthree"],
        ["4", None, "ж" * 200],
    ]
    (page,) = sheet([NUMBER, KIND, TEXT], rows)
    width = page.column_dimensions["B"].width
    assert 32 < width < 64
    assert all(page.cell(row, column).alignment.wrap_text for row in (2, 4) for column in (2, 3))
    heights = [page.row_dimensions[row].height for row in range(2, 6)]
    assert heights[0] == 30, "two lines of a hash"
    assert heights[2] == 45
    assert min(heights[1], heights[3]) > 45
    assert max(heights) <= 409


@pytest.mark.parametrize("text", ["x" * 30_000, "line\n" * 6_000, "日本語" * 9_000])
def test_no_row_is_higher_than_a_sheet_allows(text: str) -> None:
    (page,) = sheet([NUMBER, TEXT], [["1", text], ["2", "short"]])
    assert page.row_dimensions[2].height == 405
    assert page.row_dimensions[3].height is None


def test_short_texts_need_no_heights() -> None:
    (page,) = sheet([NUMBER, TEXT], [[str(number), f"text {number}"] for number in range(200)])
    assert {page.row_dimensions[row].height for row in range(2, 202)} == {None}


def test_later_texts_that_are_longer_have_their_height() -> None:
    rows = [[str(number), "short"] for number in range(300)] + [["300", "far longer " * 20]]
    (page,) = sheet([NUMBER, TEXT], rows)
    assert page.row_dimensions[302].height > 100
    assert page.row_dimensions[301].height is None
