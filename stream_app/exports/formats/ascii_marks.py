"""Keeps characters outside ASCII out of SQL that the service writes. Pure.

PostgreSQL converts a whole statement to the encoding of its database, and refuses a statement with characters
that the encoding lacks. For example, no LATIN1 or WIN1252 has the narrow space between the groups of French
numbers. So SQL has a mark in place of each such character, and the frame replaces the marks in the rows.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from stream_app.locales import LocaleRules

_FOREIGN = re.compile(r"[^\x00-\x7f]")
_START, _END = "\x01\x05", "\x06"
"""Control characters around the number of a character. Texts of the data have no such mark."""


def marked(text: str) -> str:
    """Return ``text`` with marks in place of the characters outside ASCII."""
    return _FOREIGN.sub(lambda found: f"{_START}{ord(found[0]):x}{_END}", text)


def marked_rules(rules: LocaleRules) -> LocaleRules:
    """Return ``rules`` for SQL, with marks."""
    return replace(
        rules,
        decimal=marked(rules.decimal),
        group=marked(rules.group),
        date_parts=tuple(map(marked, rules.date_parts)),
    )


def texts_of(rules: LocaleRules) -> Iterator[str]:
    """Yield the texts in ``rules`` that can have marks in SQL."""
    yield from (rules.decimal, rules.group, *rules.date_parts)


def unmarked(chunks: Iterator[bytes], texts: Iterable[str]) -> Iterator[bytes]:
    """Return ``chunks``, which have whole rows, with the characters of ``texts`` in place of their marks."""
    foreign = sorted({found for text in texts for found in _FOREIGN.findall(text)})
    pairs = [(marked(character).encode(), character.encode()) for character in foreign]
    return _replaced(chunks, pairs) if pairs else chunks


def _replaced(chunks: Iterator[bytes], pairs: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    start = _START.encode()
    for chunk in chunks:
        if start in chunk:
            for mark, character in pairs:
                chunk = chunk.replace(mark, character)
        yield chunk
