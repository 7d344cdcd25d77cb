"""Titles of sheets: every program accepts them, and they differ."""

import re

from hypothesis import given
from hypothesis import strategies as st

from stream_app.exports.formats.excel.sheet_titles import SheetTitles

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=100) | st.sampled_from(
    ["History", "Overview", "a" * 40, "a" * 31, "'quoted'", "a/b", "A/B", ""]
)


def sheet_titles(given_names: list[str]) -> list[str]:
    titles = SheetTitles()
    return [titles.add(name) for name in given_names]


@given(st.lists(names, max_size=20))
def test_titles_are_valid_and_differ(given_names: list[str]) -> None:
    titles = sheet_titles(given_names)
    assert len(titles) == len(given_names)
    assert len({title.casefold() for title in titles}) == len(titles)
    for title in titles:
        assert 1 <= len(title) <= 31
        assert not re.search(r"[\[\]:*?/\\]", title)
        assert title[0] != "'" != title[-1]
        assert title.casefold() != "history"


def test_a_title_that_is_free_stays_as_it_is() -> None:
    assert sheet_titles(["ledger", "Ledger", "x" * 31, "x" * 32]) == [
        "ledger",
        "Ledger (2)",
        "x" * 31,
        "x" * 27 + " (2)",
    ]
