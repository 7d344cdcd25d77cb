"""Filters in the heads of files: whole days are days, other times stay bounds."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.conditions import conditions
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.filter_words import FilterWords
from stream_app.exports.queries.row_query import reference
from stream_app.exports.queries.sql_text import render
from stream_app.text_style import TextStyle
from streaming_exporter.events import Options
from tests.rows import each_row

AT = Column("at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ)
CODE = Column("code", "text", "text", Kind.TEXT)


@each_row(
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
        ({"gte": "2026-10-01", "lte": "2026-10-30T23:00Z"}, "at >= 01.10.2026; at <= 31.10.2026 00:00"),
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


COLUMNS = {
    Kind.TIMESTAMPTZ: AT,
    Kind.TIMESTAMP: Column("at", "timestamp without time zone", "timestamp", Kind.TIMESTAMP),
    Kind.DATE: Column("at", "date", "date", Kind.DATE),
}
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"]


def head(tests: Any, kind: Kind, zone: str | None, *, is_in_file: bool = True) -> str:
    options = Options(timezone=zone)
    columns = (COLUMNS[kind],) if is_in_file else (CODE,)
    document = Document(
        "ledger", columns, options, datetime(2026, 11, 1, tzinfo=UTC), filter_kinds={"at": kind}
    )
    words = FilterWords.of(document, TextStyle.of(options.timezone, None), FileWords.of(options))
    return words.line({"at": tests})


def limit(tests: Any, kind: Kind, zone: str) -> datetime:
    """Return the time in the only condition that the filter is."""
    found = conditions({"at": tests}, {"at": COLUMNS[kind]}, reference, zone=ZoneInfo(zone))
    (text,) = re.findall(r"CAST\('([^']*)' AS ", render(select(reference("at")).where(*found)))
    return datetime.fromisoformat(text)


OFFSETS = st.sampled_from(["", "Z", "+02:00", "-05:00", "+05:30", "[Europe/Berlin]", "[America/New_York]"])
MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)).map(
    lambda value: value.replace(second=0, microsecond=0)
)


@given(MOMENTS, st.sampled_from(["T", " "]), OFFSETS, st.sampled_from(ZONES),
       st.sampled_from([Kind.TIMESTAMP, Kind.TIMESTAMPTZ]), st.sampled_from(["gt", "gte", "lt", "lte", "eq"]),
       st.booleans())  # fmt: skip
def test_the_head_shows_the_time_that_the_rows_are_compared_with(
    moment: datetime, between: str, offset: str, zone: str, kind: Kind, operator: str, is_in_file: bool
) -> None:
    """As the cells of the column show it: an instant in the zone of the file, any other time as it is."""
    value = moment.isoformat(between, "minutes") + offset
    compared = limit({operator: value}, kind, zone)
    if kind is Kind.TIMESTAMPTZ:
        compared = (compared if compared.tzinfo else compared.replace(tzinfo=UTC)).astimezone(ZoneInfo(zone))
    _, _, shown = head({operator: value}, kind, zone, is_in_file=is_in_file).split(" ", 2)
    assert shown in (f"{compared:%Y-%m-%d %H:%M}", f"{compared:%Y-%m-%d}")
    if shown == f"{compared:%Y-%m-%d}":  # with the other operators a date is its whole day
        assert operator in ("gte", "lt")
        assert compared.time() == datetime.min.time()


@each_row("zone", ZONES)
@each_row(
    ("kind", "first", "end", "shown"),
    [
        (Kind.TIMESTAMPTZ, "2026-07-01", "2026-08-01", "at: 2026-07-01 to 2026-07-31"),
        (Kind.TIMESTAMPTZ, "20260701", "2026-W31-6", "at: 2026-07-01 to 2026-07-31"),
        (Kind.TIMESTAMP, "2026-07-01", "2026-08-01", "at: 2026-07-01 to 2026-07-31"),
        (Kind.TIMESTAMP, "2026-07-01T00:00", "2026-08-01 00:00", "at: 2026-07-01 to 2026-07-31"),
        (Kind.TIMESTAMP, "2026-07-01T00:00Z", "2026-08-01T02:00+02:00", "at: 2026-07-01 to 2026-07-31"),
        (
            Kind.TIMESTAMP,
            "2026-06-30T22:00:00Z",
            "2026-07-31T22:00:00Z",
            "at >= 2026-06-30 22:00; at < 2026-07-31 22:00",
        ),
        (
            Kind.TIMESTAMP,
            "2026-07-01T00:00+02:00",
            "2026-08-01[Europe/Berlin]",
            "at >= 2026-06-30 22:00; at < 2026-08-01[Europe/Berlin]",
        ),
        (Kind.DATE, "2026-07-01", "2026-08-01", "at: 2026-07-01 to 2026-07-31"),
    ],
)
def test_a_period_is_that_of_the_rows(kind: Kind, first: str, end: str, shown: str, zone: str) -> None:
    assert head({"gte": first, "lt": end}, kind, zone) == shown


def test_midnight_without_an_offset_is_one_of_utc() -> None:
    naive = {"gte": "2026-07-01T00:00", "lt": "2026-08-01T00:00"}
    assert head(naive, Kind.TIMESTAMPTZ, "Europe/Berlin") == "at >= 2026-07-01 02:00; at < 2026-08-01 02:00"
    for zone in ("UTC", None):
        assert head(naive, Kind.TIMESTAMPTZ, zone) == "at: 2026-07-01 to 2026-07-31"


@given(st.dates(datetime(1950, 1, 1).date()), st.sampled_from(ZONES))
def test_a_window_of_a_day_is_the_day_of_the_file(day: Any, zone: str) -> None:
    begin = datetime.combine(day, datetime.min.time(), timezone(timedelta(hours=0)))
    window = {"gte": f"{begin:%Y-%m-%dT%H:%M:%SZ}", "lt": f"{begin + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"}
    assert head(window, Kind.TIMESTAMP, zone) == f"at: {day}"
