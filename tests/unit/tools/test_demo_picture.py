"""The picture of the demo has the last state of a terminal, and loads nothing from elsewhere."""

import re
from html import unescape

from rich.text import Text

from dev.demo import next_step
from tools.demo_picture import PICTURE, last_state, picture

OUTPUT = "starting\n\x1b[1A\x1b[2K\x1b[32mready\x1b[0m\n10 rows\r\x1b[2K20 rows\n"


def test_lines_that_are_drawn_again_have_their_last_text() -> None:
    assert last_state(OUTPUT) == "\x1b[32mready\x1b[0m\n20 rows"


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    for svg in (picture(OUTPUT), PICTURE.read_text("utf-8")):
        places = re.findall(r"(?:src|href)=\"([^\"]*)\"", svg)
        assert not [place for place in places if not place.startswith("#")]
        assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", svg)
        assert "<script" not in svg


def test_the_picture_ends_with_the_last_line_of_the_demo() -> None:
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", PICTURE.read_text("utf-8"))
    shown = unescape("".join(texts)).replace("\xa0", " ")
    assert shown.rstrip().endswith(Text.from_markup(next_step()).plain)
