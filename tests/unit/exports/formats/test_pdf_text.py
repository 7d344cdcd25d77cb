"""Lines fit their columns, and all characters are shown."""

from unicodedata import combining

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.exports.formats.base import Tally
from stream_app.exports.formats.pdf import fonts as pdf_fonts
from stream_app.exports.formats.pdf.file import LEFTWARDS, NULL
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.text import WrapCache, columns_of, encoded, shown, unescaped, wrap
from stream_app.exports.formats.pdf.typefaces import UNITS
from tests.rows import each_row

FONTS = Fonts()
WIDTH = 10 * UNITS

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


def escaped(text: str) -> str:
    """Return the text as COPY writes it."""
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
    assert "".join(line.removeprefix(LEFTWARDS) for line in lines) == text
    seen = [line.rstrip(" ") for line in lines]  # a space can be outside of the column
    assert all(FONTS.measure(line) <= width or len(line) == 1 or FONTS.is_foreign(line) for line in seen)


WORDS = {
    "Hebrew": ["שלום", "עולם", "(12)", "טקסט", "ארוך,", "abc", ""],
    "Arabic": ["السلام", "عليكم", "ورحمة", "الله", "123", "وبركاته", "محمد", "price"],
    "Thai": ["ภาษาไทย", "น้ำ", "ที่นี่", "ช่องว่าง"],
    "Hindi": ["हिन्दी", "क्षेत्र", "ज्ञान", "श्री", "प्रार्थना", "स्तंभ"],
    "Chinese": ["中文", "标点", "（简体）", "，", "。", "换行", "ABC"],
    "Japanese": ["日本語", "テキスト", "かな", "。", "「漢字」"],
    "Korean": ["한국어", "텍스트", "단어", "사이에서", "줄이"],
}


DUST = 1e-6
"""Tolerance for sums of floating-point numbers."""


def paragraphs(script: str) -> st.SearchStrategy[str]:
    """Return a strategy for words of one script, some of them without a space between."""
    parts = st.lists(
        st.tuples(st.sampled_from(WORDS[script]), st.sampled_from(["", " "])), min_size=1, max_size=20
    )
    return parts.map(lambda found: "".join(word + space for word, space in found))


@given(st.sampled_from(sorted(WORDS)).flatmap(paragraphs), st.integers(2 * UNITS, 20 * UNITS))
@example("لامعل", 500)
@example("سلامالس", 844)
@example("iceوبركات", 845)
def test_lines_of_other_scripts_are_the_text_and_fit(text: str, width: int) -> None:
    """V12: a letter and its marks stay together, and each part of a divided word fits."""
    text = show(text)
    lines = wrap(text, width, FONTS).split("\n")
    assert "".join(line.removeprefix(LEFTWARDS) for line in lines) == text
    for line in lines:
        seen = line.rstrip(" ")  # a space can be outside of the column
        assert FONTS.measure(seen) <= width + DUST, line
        assert not combining((seen.removeprefix(LEFTWARDS) or " ")[0])


def test_a_column_that_is_too_narrow_has_a_letter_on_each_line() -> None:
    """V12: the marks of the letter are on the same line."""
    assert wrap(show("لُامٌ"), 1, FONTS).split("\n") == [LEFTWARDS + letter for letter in ("لُ", "ا", "مٌ")]


def test_lines_break_around_ideographs_but_not_before_a_full_stop() -> None:
    text = show("中文文本，包含标点。")
    for width in range(2 * UNITS, 10 * UNITS, UNITS):
        for line in wrap(text, width, FONTS).split("\n"):
            assert line[0] not in "，。"


def test_lines_from_right_to_left_are_marked() -> None:
    text = show("שלום 1234567890 abcdefghij")
    assert wrap(text, 6 * UNITS, FONTS).split("\n") == [
        LEFTWARDS + line for line in ("שלום ", "1234567890 ", "abcdefghij")
    ]
    assert LEFTWARDS not in wrap(show("abc שלום"), 2 * UNITS, FONTS)


def test_lines_break_between_words_where_there_are_any() -> None:
    lines = wrap("some words and anextremelylongone to wrap", 4 * UNITS, FONTS).split("\n")
    assert lines[:2] == ["some ", "words "]
    assert "".join(lines) == "some words and anextremelylongone to wrap"


def test_line_breaks_of_the_value_are_kept() -> None:
    assert wrap("a\n\nb", WIDTH, FONTS) == "a\n\nb"


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_cells_are_read_back_from_copys_text(rows: list[tuple[str, str]]) -> None:
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


@each_row(
    ("text", "expected"),
    [
        ("Grüße Ελλάδα Привет Việt Łódź", "Grüße Ελλάδα Привет Việt Łódź"),
        ("\U0001f600!", "\\u{1f600}!"),
        ("שלום 中文 हिन्दी ไทย", "שלום 中文 हिन्दी ไทย"),
        ("ગુજરાતી", "\\u{a97}\\u{ac1}\\u{a9c}\\u{ab0}\\u{abe}\\u{aa4}\\u{ac0}"),
        ("\u202eright to left", "\\u{202e}right to left"),
        ("e\u0301", "e\u0301"),
        ("a\u00a0b", "a\u00a0b"),
        ("\x01\x7f\ufffe", "\\u{1}\\u{7f}\\u{fffe}"),
    ],
)
def test_a_character_without_a_font_is_shown_as_its_code(text: str, expected: str) -> None:
    assert show(text) == expected


def test_without_the_extra_other_scripts_are_shown_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """V12: characters without a font are visible and counted."""
    monkeypatch.setattr(pdf_fonts, "can_shape", lambda: False)
    tally = Tally()
    assert shown("a שם 中", "a שם 中", Fonts(), tally) == "a \\u{5e9}\\u{5dd} \\u{4e2d}"
    assert tally.warnings == {"replaced_characters": 3}


def test_null_differs_from_an_empty_text_and_from_its_own_symbol() -> None:
    known = WrapCache(FONTS, WIDTH)
    assert [known[cell] for cell in ("\\N", "", "\\\\N")] == [NULL, "", "\\N"]


def test_the_cache_of_lines_is_bounded() -> None:
    known = WrapCache(FONTS, WIDTH)
    for number in range(3 * known.REMEMBERED):
        assert known[str(number)] == str(number)
    assert known["x" * 1000].count("\n") > 20
    assert len(known) <= known.REMEMBERED
    assert max(map(len, known)) <= known.SHORT


def test_strings_of_a_page_escape_special_bytes() -> None:
    assert encoded("(\\)", FONTS, [], 8) == b"\0\\(\0\\\\\0\\)"
    FONTS.admit("čĩ")
    assert encoded("čĩĨ", FONTS, [], 8) == b"\x01\r\x01\\)\x01\\(".replace(b"\r", b"\\r")
