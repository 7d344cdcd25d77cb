"""All spellings of one day select the same rows: in a request and in a run, for each kind of timestamps."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from stream_app.datasets.models import Dataset, Parameter
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.conditions import conditions
from stream_app.exports.filters.relative_dates import resolve_parameters, resolve_request
from stream_app.exports.filters.whole_days import day_zone
from stream_app.exports.queries.row_query import reference
from stream_app.exports.queries.sql_text import render
from stream_app.schedules.due_runs import Run
from stream_app.schedules.models import Schedule
from stream_app.schedules.run_planner import run_request
from streaming_exporter.events import ExportRequest
from tests.rows import each_row

NOW = datetime(2026, 7, 1, 10, tzinfo=UTC)
"""On 1 July 2026 in all of the zones."""

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia")
BEGINNINGS = {
    "UTC": "2026-07-01T00:00:00+00:00",
    "Europe/Berlin": "2026-06-30T22:00:00+00:00",
    "America/New_York": "2026-07-01T04:00:00+00:00",
    "Pacific/Apia": "2026-06-30T11:00:00+00:00",
}
ENDS = {
    "UTC": "2026-07-02T00:00:00+00:00",
    "Europe/Berlin": "2026-07-01T22:00:00+00:00",
    "America/New_York": "2026-07-02T04:00:00+00:00",
    "Pacific/Apia": "2026-07-01T11:00:00+00:00",
}

SPELLINGS: tuple[Any, ...] = (
    "2026-07-01", "20260701", "2026-W27-3",
    "today", "yesterday+1d", "tomorrow-1d", "today-1w+7d", "today+1mo-1mo",
    {"eq": "2026-07-01"}, {"eq": "today"}, {"in": ["today"]}, {"in": ["2026-07-01"]},
    {"gte": "today", "lt": "tomorrow"}, {"gte": "today", "lte": "today"}, {"gt": "yesterday", "lte": "today"},
    {"gt": "yesterday", "lt": "tomorrow"}, {"gte": "2026-07-01", "lt": "tomorrow"},
    {"gte": "today", "lt": "2026-07-02"}, {"gt": "yesterday", "lte": "2026-07-01"},
    {"gte": "2026-07-01", "lt": "2026-07-02"},
)  # fmt: skip

KINDS = {Kind.TIMESTAMP: "timestamp without time zone", Kind.TIMESTAMPTZ: "timestamp with time zone"}


def interval(filters: dict[str, Any], kind: Kind, zone: str) -> tuple[str, str]:
    """Return the first moment of the rows that ``filters`` select, and the first one after them."""
    columns = {"at": Column("at", KINDS[kind], kind.value, kind)}
    found = conditions(filters, columns, reference, zone=ZoneInfo(zone))
    where = render(select(reference("at")).where(*found)).partition("WHERE ")[2]
    limits = dict(re.findall(r"""(>=|<) CAST\('([^']*)' AS """, where))
    assert set(limits) == {">=", "<"}
    assert len(re.findall("CAST", where)) == 2
    start, end = (datetime.fromisoformat(limits[sign]) for sign in (">=", "<"))
    if kind is Kind.TIMESTAMP:
        return start.isoformat(), end.isoformat()
    return start.astimezone(UTC).isoformat(), end.astimezone(UTC).isoformat()


def expected(kind: Kind, zone: str) -> tuple[str, str]:
    if kind is Kind.TIMESTAMP:
        return "2026-07-01T00:00:00", "2026-07-02T00:00:00"
    return BEGINNINGS[zone], ENDS[zone]


def in_request(wanted: Any, kind: Kind, *, timezone: str | None, default: str | None) -> dict[str, Any]:
    columns = {"at": Column("at", KINDS[kind], kind.value, kind)}
    request = ExportRequest.parse(
        {
            "user_id": "u",
            "export_type": "orders",
            "format": "csv",
            "filters": {"at": wanted},
            "options": {"timezone": timezone},
        }
    )
    return resolve_request(request, columns, NOW, default).filters


def in_run(
    wanted: Any, kind: Kind, zone: str, *, timezone: str | None, default: str | None
) -> dict[str, Any]:
    content: dict[str, Any] = dict.fromkeys(Schedule.__dataclass_fields__)
    content |= {
        "id": UUID(int=7), "user_id": "u", "export_type": "orders", "format": "csv", "scope": "own",
        "filters": {"at": wanted}, "column_kinds": {"at": kind.value},
        "options": None if timezone is None else {"timezone": timezone},
    }  # fmt: skip
    dataset = Dataset(name="orders", table="orders", owner="owner", timezone=default)
    found = run_request(Schedule(**content), Run(NOW, None), dataset, ZoneInfo(zone))
    return dict(found.event.data["filters"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zone", ZONES)
@each_row("wanted", SPELLINGS)
def test_all_spellings_of_a_day_are_the_same_rows(wanted: Any, zone: str, kind: Kind) -> None:
    """Wherever the zone comes from: the request, the dataset or the schedule."""
    found = {
        "request": interval(in_request(wanted, kind, timezone=zone, default=None), kind, zone),
        "dataset": interval(in_request(wanted, kind, timezone=None, default=zone), kind, zone),
        "run": interval(in_run(wanted, kind, zone, timezone=None, default=None), kind, "UTC"),
        "run with a zone": interval(in_run(wanted, kind, zone, timezone=zone, default=None), kind, zone),
        "run of a dataset with a zone": interval(
            in_run(wanted, kind, zone, timezone=None, default="Asia/Tokyo"), kind, "Asia/Tokyo"
        ),
    }
    assert found == dict.fromkeys(found, expected(kind, zone))


@each_row("kind", KINDS)
@each_row("zone", ZONES)
def test_days_before_and_from_now_on_meet(zone: str, kind: Kind) -> None:
    """``lte: yesterday`` and ``gte: today`` together are all rows, each once."""

    def limit(tests: dict[str, str]) -> str:
        columns = {"at": Column("at", KINDS[kind], kind.value, kind)}
        filters = in_request(tests, kind, timezone=zone, default=None)
        found = render(
            select(reference("at")).where(*conditions(filters, columns, reference, zone=day_zone(zone)))
        )
        (sign, moment), *others = re.findall(r"(>=|<) CAST\('([^']*)' AS ", found)
        assert not others
        assert sign == (">=" if "gte" in tests or "gt" in tests else "<")
        return str(datetime.fromisoformat(moment).replace(tzinfo=UTC))

    meeting = {limit({name: day}) for name, day in (
        ("lte", "yesterday"), ("gt", "yesterday"), ("lt", "today"), ("gte", "today"), ("lt", "2026-07-01"),
    )}  # fmt: skip
    assert meeting == {str(datetime.fromisoformat(expected(kind, zone)[0]).replace(tzinfo=UTC))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zone", ZONES)
@each_row("value", [item for item in SPELLINGS if isinstance(item, str)])
def test_a_day_of_a_parameter_begins_where_it_does_in_filters(value: str, zone: str, kind: Kind) -> None:
    given = [({"since": value}, Parameter(type=kind.value))]
    if value.isascii() and value[0].isalpha():
        given.append(({}, Parameter(type=kind.value, default=value)))
    for values, parameter in given:
        found = resolve_parameters(values, {"since": parameter}, NOW, ZoneInfo(zone))["since"]
        moment = datetime.fromisoformat(found).isoformat()
        assert moment.removesuffix("+00:00") == expected(kind, zone)[0].removesuffix("+00:00")
