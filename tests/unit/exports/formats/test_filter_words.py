"""Filters in the heads of files: whole days are days, other times stay bounds."""

from datetime import UTC, datetime

import pytest

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.filter_words import FilterWords
from stream_app.text_style import TextStyle
from streaming_exporter.events import Options

AT = Column("at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ)
CODE = Column("code", "text", "text", Kind.TEXT)


@pytest.mark.parametrize(
    ("tests", "shown"),
    [
        ({"gte": "2026-09-30T22:00:00Z", "lt": "2026-10-31T23:00:00Z"}, "at: 01.10.2026 bis 31.10.2026"),
        ({"lt": "2026-10-02T00:00+02:00", "gte": "2026-10-01T00:00+02:00"}, "at: 01.10.2026"),
        (
            {"gte": "2026-09-30T22:00Z", "lt": "2026-10-01T22:00Z", "ne": None},
            "at: 01.10.2026; at ist nicht leer",
        ),
        (
            {"gte": "2026-10-01T00:00:00Z", "lt": "2026-11-01T00:00Z"},
            "at >= 01.10.2026 02:00; at < 01.11.2026 01:00",
        ),
        ({"gte": "2026-10-31T23:00Z", "lt": "2026-09-30T22:00Z"}, "at >= 01.11.2026; at < 01.10.2026"),
        ({"gte": "2026-09-30T22:00Z"}, "at >= 01.10.2026"),
        ({"gte": "2026-10-01", "lte": "2026-10-31"}, "at: 01.10.2026 bis 31.10.2026"),
        ({"gte": "2026-10-31", "lte": "2026-10-31"}, "at: 31.10.2026"),
        ({"gte": "2026-10-01", "lte": "9999-12-31"}, "at: 01.10.2026 bis 31.12.9999"),
        ({"lte": "2026-10-31", "gte": "2026-11-01"}, "at >= 01.11.2026; at <= 31.10.2026"),
        ({"gte": "2026-10-01", "lte": "2026-10-30T23:00Z"}, "at >= 01.10.2026; at <= 31.10.2026"),
        ({"gte": "0001-01-01T00:00+14:00", "lt": "9999-12-31T23:00-12:00"}, None),
    ],
)  # fmt: skip
def test_a_period_is_its_days(tests: dict[str, str | None], shown: str | None) -> None:
    options = Options(locale="de-DE", timezone="Europe/Berlin")
    document = Document("ledger", (AT, CODE), options, datetime(2026, 11, 1, tzinfo=UTC))
    words = FilterWords.of(document, TextStyle.of(options.timezone, options.locale), FileWords.of(options))
    if shown is None:
        assert words.line({"at": tests}).startswith("at >= 0001-01-01")
    else:
        assert words.line({"at": tests}) == shown
    assert words.line({"code": {"gte": "2026-10-01", "lt": "2026-11-01"}}) == (
        "code >= 2026-10-01; code < 2026-11-01"
    )


def test_a_day_without_midnight_is_shown_as_a_day() -> None:
    options = Options(locale="es-CL", timezone="America/Santiago")
    document = Document("ledger", (AT,), options, datetime(2026, 9, 8, tzinfo=UTC))
    words = FilterWords.of(document, TextStyle.of(options.timezone, options.locale), FileWords.of(options))
    day = {"gte": "2026-09-06T04:00:00Z", "lt": "2026-09-07T03:00:00Z"}
    assert words.line({"at": day}) == "at: 06-09-2026"
    assert words.line({"at": {"lt": "2026-09-06T04:00:00Z"}}) == "at < 06-09-2026"
    assert words.line({"at": {"lt": "2026-09-06T04:00:01Z"}}) == "at < 06-09-2026 01:00:01"
