"""A date in a filter of timestamps is its whole day, by PostgreSQL (people A1)."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.filters.conditions import MAX_RANGES
from stream_app.exports.sources.source import Source
from tests.integration.exports.selecting import described, selected

DAYS = [date(2026, 3, 29), date(2026, 10, 25), date(2026, 10, 31)]
"""Two days on which clocks in Berlin change, and the end of a month."""


def moments(zone: ZoneInfo) -> list[datetime | None]:
    """Return instants around the borders of the days, and NULL."""
    borders = [
        datetime.combine(day, time(), zone).astimezone(UTC)
        for one in DAYS
        for day in (one, one + timedelta(1))
    ]
    around = (-timedelta(microseconds=1), timedelta(0), timedelta(hours=1), timedelta(hours=-1))
    return [None, *sorted({border + step for border in borders for step in around})]


def expected(operator: str, moment: datetime | None, value: Any, zone: ZoneInfo) -> bool:
    """Compare as a person does: by the day that a calendar in the zone shows."""
    day = None if moment is None else moment.astimezone(zone).date()
    if operator in ("in", "not_in"):
        wanted = [None if item is None else date.fromisoformat(item) for item in value]
        return (day in wanted) == (operator == "in")
    one = date.fromisoformat(value)
    if operator == "ne":
        return day != one
    if day is None:
        return False
    return {
        "eq": day == one,
        "lt": day < one,
        "lte": day <= one,
        "gt": day > one,
        "gte": day >= one,
    }[operator]


CASES: list[tuple[str, Any]] = [
    *((operator, day.isoformat()) for operator in ("eq", "ne", "lt", "lte", "gt", "gte") for day in DAYS),
    *(
        (operator, value)
        for operator in ("in", "not_in")
        for value in (
            [day.isoformat() for day in DAYS],
            ["2026-10-25", "2026-10-26", "2026-10-24"],
            ["2026-10-31", None],
            [None],
        )
    ),
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Auckland"])
async def test_every_operator_takes_the_whole_day_of_the_zone(
    database: asyncpg.Connection, schema: str, source: Source, zone: str
) -> None:
    own, all_moments = ZoneInfo(zone), moments(ZoneInfo(zone))
    await database.execute("CREATE TABLE days (id int, at timestamptz, wall timestamp, ms timestamptz(3))")
    await database.executemany(
        "INSERT INTO days VALUES ($1, $2, $3, $2)",
        [
            (number, moment, moment and moment.astimezone(own).replace(tzinfo=None))
            for number, moment in enumerate(all_moments)
        ],
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.days", order=("id",)))
    by_dataset = await described(
        source, Dataset(name="t", table=f"{schema}.days", order=("id",), timezone=zone)
    )
    for operator, value in CASES:
        wanted = [
            number for number, moment in enumerate(all_moments) if expected(operator, moment, value, own)
        ]
        tests = {operator: value}
        by_option = await selected(source, table, filters={"at": tests}, options={"timezone": zone})
        assert by_option == wanted, (operator, value)
        assert await selected(source, by_dataset, filters={"at": tests}) == wanted, (operator, value)
        by_wall = await selected(source, table, filters={"wall": tests})
        assert by_wall == wanted, (operator, value)
        if isinstance(value, str):
            named = {operator: f"{value}[{zone}]"}
            assert await selected(source, table, filters={"at": named}) == wanted, (operator, value)


async def test_dates_and_times_together_and_the_edges_of_the_calendar(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    await database.execute(
        """CREATE TABLE edges AS SELECT row_number() OVER () AS id, at::timestamptz
        FROM unnest('{-infinity,0001-01-01 12:00+00,2026-10-31 12:00+00,2026-11-02 00:00+00,
        9999-12-31 23:59+00,infinity}'::text[]) at"""
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.edges", order=("id",)))

    async def rows(filters: dict[str, Any], **options: Any) -> list[int]:
        return await selected(source, table, filters={"at": filters}, options=options)

    assert await rows({"in": ["2026-10-31", "2026-11-02T00:00:00Z"]}) == [3, 4]
    assert await rows({"not_in": ["2026-10-31", "2026-11-02T00:00:00Z"]}) == [1, 2, 5, 6]
    assert await rows({"lte": "0001-01-01"}, timezone="Asia/Tokyo") == [1, 2]
    assert await rows({"gte": "9999-12-31"}, timezone="America/New_York") == [5, 6]
    assert await rows({"gt": "9999-12-31"}) == [6]
    assert await rows({"eq": "2026-10-31T13:00[Europe/Berlin]"}) == [3]
    assert await rows({"gte": "2026-10-01", "lte": "2026-10-31"}) == [3]


@pytest.mark.parametrize("count", [MAX_RANGES, MAX_RANGES + 1, 2_000])
async def test_many_separate_days(
    database: asyncpg.Connection, schema: str, source: Source, count: int
) -> None:
    """Their borders are searched by halves: the same rows as with a range for each day."""
    await database.execute(
        """CREATE DOMAIN moment AS timestamptz(3);
        CREATE TABLE many AS SELECT row_number() OVER () AS id, at, at AT TIME ZONE 'UTC' AS wall,
            at::moment AS limited
        FROM (SELECT timestamptz '2020-01-01 00:00+00' + n * interval '12 hours'
              FROM generate_series(-2, 8000) n
              UNION ALL SELECT unnest('{NULL,-infinity,infinity}'::timestamptz[])) AS moments (at)"""
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.many", order=("id",)))
    days = [(date(2020, 1, 1) + timedelta(days=2 * number)).isoformat() for number in range(count)]
    within = await database.fetch(
        "SELECT id FROM many WHERE (at AT TIME ZONE 'UTC')::date = ANY($1::text[]::date[])", days
    )
    wanted = sorted(row["id"] for row in within)
    assert len(wanted) == 2 * count
    everything = await database.fetchval("SELECT count(*) FROM many")
    for column in ("at", "wall", "limited"):
        assert await selected(source, table, filters={column: {"in": days}}) == wanted, column
        others = await selected(source, table, filters={column: {"not_in": days}})
        assert not set(wanted) & set(others)
        assert len(wanted) + len(others) == everything, column
