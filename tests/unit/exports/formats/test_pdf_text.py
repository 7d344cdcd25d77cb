"""Lines that fit, and characters that show."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.exports.formats.base import Tally
from stream_app.exports.formats.pdf_fonts import UNITS, Fonts
from stream_app.exports.formats.pdf_text import NULL, Wrapped, columns_of, encoded, shown, unescaped, wrap

FONTS = Fonts()
WIDTH = 10 * UNITS

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


def escaped(text: str) -> str:
    """As COPY writes it."""
    for character, name in (
        ("\\", "\\"),
        ("\b", "b"),
        ("\f", "f"),
        ("\n", "n"),
        ("\r", "r"),
        ("\t", "t"),
        ("\v", "v"),
    ):
        text = text.replace(character, "\\" + name)
    return text


def show(text: str) -> str:
    return shown(text, text, FONTS, Tally())


@given(texts, st.integers(100, 5_000))
@example("0 ", 100)  # a character that is wider than its column, and a space after it
def test_lines_are_the_text_and_fit(text: str, width: int) -> None:
    text = show(text)
    lines = wrap(text, width, FONTS).split("\n")
    assert "".join(lines) == text
    seen = [line.rstrip(" ") for line in lines]  # a space may stand beyond the edge
    assert all(FONTS.measure(line) <= width or len(line) == 1 for line in seen)


def test_lines_break_between_words_where_there_are_any() -> None:
    lines = wrap("some words and anextremelylongone to wrap", 4 * UNITS, FONTS).split("\n")
    assert lines[:2] == ["some ", "words "]
    assert "".join(lines) == "some words and anextremelylongone to wrap"


def test_line_breaks_of_the_value_stay() -> None:
    assert wrap("a\n\nb", WIDTH, FONTS) == "a\n\nb"


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_cells_come_back_from_what_copy_writes(rows: list[tuple[str, str]]) -> None:
    tally = Tally()
    chunk = "".join(f"{escaped(first)}\t{escaped(second)}\n" for first, second in rows).encode()
    columns = columns_of(chunk, FONTS, tally)
    expected, replaced = [], 0
    for value in (value for row in rows for value in row):
        lines = value.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ").split("\n")
        expected.append("\n".join(map(show, lines)))
        replaced += sum(FONTS.admit(character) != set() for line in lines for character in line)
    assert [unescaped(cell) for row in zip(*columns, strict=True) for cell in row] == expected
    assert tally.warnings["replaced_characters"] == replaced


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Grüße Ελλάδα Привет Việt Łódź", "Grüße Ελλάδα Привет Việt Łódź"),
        ("\U0001f600!", "\\u{1f600}!"),
        ("שלום", "\\u{5e9}\\u{5dc}\\u{5d5}\\u{5dd}"),
        ("\u202eright to left", "\\u{202e}right to left"),
        ("e\u0301", "e\u0301"),
        ("a\u00a0b", "a\u00a0b"),
        ("\x01\x7f\ufffe", "\\u{1}\\u{7f}\\u{fffe}"),
    ],
)
def test_what_cannot_be_shown_is_shown_as_its_code(text: str, expected: str) -> None:
    assert show(text) == expected


def test_null_is_not_empty_nor_a_text_that_looks_like_it() -> None:
    known = Wrapped(FONTS, WIDTH)
    assert [known[cell] for cell in ("\\N", "", "\\\\N")] == [NULL, "", "\\N"]


def test_what_is_remembered_is_bounded() -> None:
    known = Wrapped(FONTS, WIDTH)
    for number in range(3 * known.REMEMBERED):
        assert known[str(number)] == str(number)
    assert known["x" * 1000].count("\n") > 20
    assert len(known) <= known.REMEMBERED
    assert max(map(len, known)) <= known.SHORT


def test_strings_of_a_page_escape_what_would_end_them() -> None:
    assert encoded("(\\)", FONTS) == b"\0\\(\0\\\\\0\\)"
    FONTS.admit("čĩ")
    assert encoded("čĩĨ", FONTS) == b"\x01\r\x01\\)\x01\\(".replace(b"\r", b"\\r")
