"""The order of a line's parts, compared with python-bidi's other algorithm, which has no levels (V12)."""

import bidi
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.exports.formats.pdf.bidi import from_left, is_leftwards, levels

texts = st.text("abcאבגابج012٣, .-+%()[]{}<>«»/:;!\u0301\u05b8中か", max_size=40)


def ordered(text: str, *, leftwards: bool) -> str:
    return "".join(
        character
        for _, character in from_left(list(zip(levels(text, leftwards=leftwards), text, strict=True)))
    )


@given(texts, st.booleans())
@example("אב (abc) 123 גד", True)
@example("price שלום (x) 12%", False)
def test_parts_are_ordered_by_the_algorithm(text: str, leftwards: bool) -> None:
    text = text.rstrip()
    assert ordered(text, leftwards=leftwards) == bidi.get_display(text, base_dir="R" if leftwards else "L")


def test_joiners_have_the_level_of_the_character_before() -> None:
    assert levels("a\u200dbא\u200dב", leftwards=False) == [0, 0, 0, 1, 1, 1]


def test_a_space_at_the_end_of_a_line_is_at_its_visual_end() -> None:
    assert levels("abc ", leftwards=True) == [2, 2, 2, 1]
    assert levels("אב ", leftwards=False) == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "leftwards"), [("abc", False), ("", False), ("12 אב c", True), ("a אב", False), ("中", False)]
)
def test_the_first_letter_decides_the_direction(text: str, leftwards: bool) -> None:
    assert is_leftwards(text) is leftwards
