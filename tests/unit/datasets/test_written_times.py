"""A time in a filter, a parameter or the limit of a list is read as it was meant, or refused."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from api.time_limits import since_moment, until_moment
from producers.dead_letters import parse_time
from stream_app.datasets.parameters import parameter_text
from stream_app.datasets.written_times import how_to_write, read_date, read_moment
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.conditions import conditions
from stream_app.exports.queries.row_query import reference
from stream_app.exports.queries.sql_text import render
from streaming_exporter.errors import Rejected, UsageError
from tests.rows import each_row

NOW = datetime(2026, 11, 28, tzinfo=UTC)
KINDS = {
    "date": Column("at", "date", "date", Kind.DATE),
    "timestamp": Column("at", "timestamp without time zone", "timestamp", Kind.TIMESTAMP),
    "timestamptz": Column("at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ),
}

DATES_WITH_OFFSETS = [
    f"{day}{offset}"
    for day in ("2026-01-31", "20260131", "2026-W05-6", "2026W056")
    for offset in (
        "Z", "z", "+02:00", "-05:00", "+0200", "-0500", "+02", "-05", "+14:00", "−05:00", " +02:00", "/02-05",
        ",02", ".02", ":02", "+02:00[Europe/Berlin]", "-05:00[America/New_York]", "110304",
    )
]  # fmt: skip
WEEKS = [
    "2026-W05",
    "2026W05",
    "2026-W05[Europe/Berlin]",
    "2026-W05T00:00",
    "2026W05 10:00",
    "2026-W05+02:00",
]


def where(kind: str, tests: Any) -> str:
    statement = select(reference("at")).where(*conditions({"at": tests}, {"at": KINDS[kind]}, reference))
    return render(statement).partition("WHERE ")[2]


@pytest.mark.parametrize("kind", KINDS)
@each_row("value", [*DATES_WITH_OFFSETS, *WEEKS])
def test_what_python_reads_as_another_time_is_refused(value: str, kind: str) -> None:
    for tests in (value, {"gte": value}, {"lte": value}, {"in": [value]}, {"not_in": [value]}):
        with pytest.raises(Rejected, match="expected ") as error:
            where(kind, tests)
        assert error.value.code == "bad_filter_value"
    with pytest.raises(Rejected) as refused:
        parameter_text(kind, value, "parameters.at")
    assert refused.value.code == "bad_parameter_value"


@each_row("value", [*DATES_WITH_OFFSETS, *WEEKS])
@pytest.mark.parametrize("limit", [since_moment, until_moment])
def test_limits_of_lists_refuse_the_same(value: str, limit: Any) -> None:
    with pytest.raises(Rejected, match="expected "):
        limit(value, NOW)
    with pytest.raises(UsageError, match=r"--since .*: expected "):
        parse_time(value, "--since")


@pytest.mark.parametrize(
    ("value", "kind", "hint"),
    [
        ("2026-01-31+02:00", "timestamptz", "2026-01-31T00:00:00+02:00"),
        ("2026-01-31-0500", "timestamp", "2026-01-31T00:00:00-05:00"),
        ("2026-01-31+02", "timestamptz", "2026-01-31T00:00:00+02:00"),
        ("2026-01-31z", "timestamptz", "2026-01-31T00:00:00Z"),
        ("2026-01-31+02:00", "date", "2026-01-31"),
        ("2026-W05", "timestamptz", "2026-W05-1"),
        ("2026W05", "date", "2026-W05-1"),
    ],
)
def test_the_error_says_how_it_is_written_and_that_is_accepted(value: str, kind: str, hint: str) -> None:
    with pytest.raises(Rejected) as error:
        where(kind, {"gte": value})
    assert hint in str(error.value).partition(", got")[0]
    assert where(kind, {"gte": hint})
    if kind == "timestamptz" and "W" not in value:
        assert "2026-01-31[Europe/Berlin]" in str(error.value)
        assert where(kind, {"gte": "2026-01-31[Europe/Berlin]"})


@given(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda value: value.replace(microsecond=0)),
    st.sampled_from(["T", "t", " ", "_"]),
    st.sampled_from([None, *range(-14 * 60, 15 * 60, 15)]),
)
def test_a_date_and_a_time_are_read_as_they_are_written(
    moment: datetime, between: str, minutes: int | None
) -> None:
    zone = None if minutes is None else timezone(timedelta(minutes=minutes))
    expected = moment.replace(tzinfo=zone)
    year, week, day = moment.isocalendar()
    for written in (
        f"{moment:%Y-%m-%d}".zfill(10),
        f"{year:04}-W{week:02}-{day}",
        f"{year:04}W{week:02}{day}",
    ):
        if year < 1 or year > 9999:
            continue
        text = written + between + expected.timetz().isoformat()
        assert read_moment(text) == expected
        assert read_moment(text).utcoffset() == expected.utcoffset()
        assert read_date(written) == moment.date()
        assert how_to_write(text, has_time=True) is None


@given(st.dates(), st.text(max_size=8))
def test_no_text_behind_a_date_is_a_time_unless_a_letter_or_a_space_begins_it(day: date, rest: str) -> None:
    text = f"{day:%Y-%m-%d}".zfill(10) + rest
    try:
        found = read_moment(text)
    except ValueError:
        return
    assert found.date() == day
    assert rest == "" or rest[0].isalpha() or rest[0].isspace() or rest[0] == "_"
