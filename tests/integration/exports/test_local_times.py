"""Time zones in every format: independent readers find the local times that PostgreSQL itself writes.

The oracle is a session of the source database whose own time zone is that of the file. An export's session
always has UTC.
"""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from pypdf import PdfReader

from stream_app.datasets.models import Dataset
from stream_app.exports.formats.zoned import local_text_sql, zoned_text_sql
from stream_app.time_zones import BEGIN, check_sql, find_zone, known_zones
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import Export

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Africa/Monrovia",  # an offset with seconds until 1972
    "Pacific/Apia",  # skipped a day
    "Australia/Lord_Howe",  # half an hour of summer time
    "Antarctica/Troll",  # two hours of summer time
    "Africa/Casablanca",
    "Etc/GMT+12",
    "CET",
    "EST",
    "UTC",
]

INSTANTS = """
    SELECT moment FROM (
        SELECT timestamptz '1850-01-01 00:00:00+00' + n * interval '2333 hours 33 minutes 21.123456 seconds'
        FROM generate_series(0, 800) AS n
        UNION ALL SELECT timestamptz '2026-03-29 00:00:00+00' + n * interval '20 minutes'
        FROM generate_series(0, 10) AS n
        UNION ALL SELECT timestamptz '2026-10-25 00:00:00+00' + n * interval '20 minutes'
        FROM generate_series(0, 10) AS n
        UNION ALL SELECT unnest('{
            infinity, -infinity, 4700-01-01 00:00:00+00 BC, 0044-03-15 12:00:00+00 BC,
            0001-12-31 23:30:00+00 BC, 0001-01-01 00:00:00+00, 0001-01-01 12:00:00+00, 0001-01-02 00:00:00+00,
            9999-12-31 23:59:59.999999+00, 10000-01-01 00:00:00+00, 20000-06-01 12:00:00+00,
            1969-12-31 23:59:59.999999+00, 2037-12-31 23:59:59.999999+00, 2038-01-01 00:00:00+00,
            2050-07-01 00:00:00+00, 2026-07-01 10:00:00+00, NULL
        }'::timestamptz[])
    ) AS instants (moment)
"""


async def in_zone(database: asyncpg.Connection, zone: str, sql: str) -> list[Any]:
    """Return the rows of ``sql`` in a session with the time zone."""
    await database.execute(f"SET TimeZone = '{zone}'; SET IntervalStyle = 'iso_8601'")
    try:
        return list(await database.fetch(sql))
    finally:
        await database.execute("SET TimeZone = 'UTC'")


@pytest.fixture
async def instants(database: asyncpg.Connection, schema: str) -> str:
    """A table with instants of all kinds."""
    await database.execute(
        "SET TimeZone = 'UTC';"
        f"CREATE TABLE instants AS SELECT row_number() OVER () AS id, moment FROM ({INSTANTS}) AS instants"
    )
    return f"{schema}.instants"


@pytest.mark.parametrize("is_looked_up", [False, True])
async def test_texts_are_those_of_a_session_in_the_zone(
    database: asyncpg.Connection, instants: str, is_looked_up: bool
) -> None:
    for name in ZONES:
        zone = find_zone(name)
        differs = await database.fetchval(check_sql(zone))
        if differs is not None:
            zone = zone.until(differs)
        if is_looked_up:
            zone = zone.until(BEGIN)
            assert not zone.changes
        expected = await in_zone(
            database,
            name,
            f"SELECT to_json(moment) #>> '{{}}', moment::timestamp::text FROM {instants} ORDER BY id",
        )
        texts = f"{zoned_text_sql('moment', zone)}, {local_text_sql('moment', zone)}"
        found = await database.fetch(f"SELECT {texts} FROM {instants} ORDER BY id")
        assert [tuple(row) for row in found] == [tuple(row) for row in expected], name


@pytest.mark.parametrize("moment", ["4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00"])
async def test_the_first_and_the_last_instants_stay_in_utc(database: asyncpg.Connection, moment: str) -> None:
    """PostgreSQL cannot convert them, so their offset is zero: the instant is right."""
    for name in ("America/New_York", "Pacific/Kiritimati"):
        value = f"'{moment}'::timestamptz"
        text = await database.fetchval(f"SELECT {zoned_text_sql(value, find_zone(name))}")
        assert text.removesuffix(" BC").endswith("+00:00")


@pytest.mark.unmeasured  # the first test reaches the same lines
@pytest.mark.slow
async def test_every_zone_has_the_times_of_the_server(database: asyncpg.Connection, instants: str) -> None:
    """PostgreSQL's functions take some names for abbreviations, without summer time."""
    known: set[tuple[object, ...]] = set()
    for name in sorted(known_zones()):
        zone = find_zone(name)
        # Of the evenly spaced ones each fourth. Another name of the same changes only has to mean the same.
        times = (zone.changes, zone.offsets)
        some = f"{instants} WHERE id > 801" + ("" if times in known else " OR id % 4 = 1")
        known.add(times)
        if (differs := await database.fetchval(check_sql(zone))) is not None:
            zone = zone.until(differs)
        expected = await in_zone(
            database, zone.sql_name, f"SELECT to_json(moment) #>> '{{}}' FROM {some} ORDER BY id"
        )
        found = await database.fetch(f"SELECT {zoned_text_sql('moment', zone)} FROM {some} ORDER BY id")
        assert [row[0] for row in found] == [row[0] for row in expected], name


async def test_changes_that_the_server_does_not_have_are_found(database: asyncpg.Connection) -> None:
    zone = find_zone("Europe/Berlin")
    for number in (1, 40, len(zone.changes) - 1):
        changes = list(zone.changes)
        changes[number] += timedelta(minutes=30)
        moved = type(zone)(zone.name, zone.sql_name, tuple(changes), zone.offsets)
        differs = await database.fetchval(check_sql(moved))
        assert differs == zone.changes[number] or abs(differs - zone.changes[number]) < timedelta(days=10)
        kept = moved.until(differs)
        assert kept.changes == zone.changes[: len(kept.changes)]
        assert all(change < zone.changes[number] for change in kept.changes)
    wrong = type(zone)(zone.name, zone.sql_name, zone.changes, (7200,) * len(zone.offsets))
    assert not wrong.until(await database.fetchval(check_sql(wrong))).changes


MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    zone=st.sampled_from(sorted(known_zones())),
    moments=st.lists(
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
        min_size=1,
        max_size=20,
    ),
)
async def test_any_instants_are_read_back(
    export: Export, database: asyncpg.Connection, schema: str, zone: str, moments: list[datetime]
) -> None:
    await database.execute("DROP TABLE IF EXISTS moments; CREATE TABLE moments (id int, at timestamptz)")
    await database.executemany("INSERT INTO moments VALUES ($1, $2)", list(enumerate(moments)))
    dataset = Dataset(name="moments", table=f"{schema}.moments", order=("id",))
    for name in ("csv", "ndjson"):
        content = (await export("", name, dataset=dataset, options={"timezone": zone})).content.decode()
        if name == "csv":
            texts = [row[1] for row in csv.reader(io.StringIO(content))][1:]
        else:
            texts = [json.loads(line)["at"] for line in content.splitlines()]
        assert [datetime.fromisoformat(text) for text in texts] == moments


TYPES = """
    CREATE TYPE visit AS (at timestamptz, place text);
    CREATE DOMAIN moment AS timestamptz;
    CREATE TABLE types (
        id int PRIMARY KEY, at timestamptz, day moment, many timestamptz[], visit visit, visits visit[],
        period tstzrange, periods tstzmultirange, plain timestamp, note text
    );
    INSERT INTO types VALUES (
        1, '2026-07-01 10:00:00+00', '2026-10-25 01:30:00+00',
        '{2026-07-01 10:00:00+00, NULL, infinity, 0044-03-15 12:00:00+00 BC}',
        ('2026-01-01 00:00:00.25+00', 'a "place"'), ARRAY[('2026-07-01 00:00:00+00', 'b')::visit],
        '[2026-03-29 00:59:59+00, 2026-03-29 01:00:00+00)', '{[2026-07-01 10:00:00+00, infinity)}',
        '2026-07-01 10:00:00', 'x'
    );
    INSERT INTO types (id) VALUES (2);
"""

IN_BERLIN: dict[str, Any] = {
    "at": "2026-07-01T12:00:00+02:00",
    "day": "2026-10-25T02:30:00+01:00",
    "many": [
        "2026-07-01T12:00:00+02:00",
        None,
        "infinity",
        "0044-03-15T12:53:28+00:53:28 BC",
    ],
    "visit": {"at": "2026-01-01T01:00:00.25+01:00", "place": 'a "place"'},
    "visits": [{"at": "2026-07-01T02:00:00+02:00", "place": "b"}],
    "period": "[2026-03-29T01:59:59+01:00,2026-03-29T03:00:00+02:00)",
    "periods": "{[2026-07-01T12:00:00+02:00,infinity)}",
    "plain": "2026-07-01T10:00:00",
    "note": "x",
}


@pytest.fixture
async def types(database: asyncpg.Connection, schema: str) -> str:
    """A table with instants at every depth."""
    await database.execute("SET TimeZone = 'UTC'; " + TYPES)
    return f"{schema}.types"


BERLIN = {"timezone": "Europe/Berlin"}


@pytest.mark.parametrize("name", ["json", "ndjson"])
@pytest.mark.parametrize("columns", [None, ["at", "day", "plain", "note"], ["many"]])
async def test_json(export: Export, types: str, name: str, columns: list[str] | None) -> None:
    exported = await export(types, name, columns=columns, options=BERLIN)
    lines = exported.content.decode().strip("[]\n").split("\n")
    first, second = (json.loads(line.rstrip(",")) for line in lines)
    wanted = columns or list(IN_BERLIN)
    assert {column: first[column] for column in wanted} == {column: IN_BERLIN[column] for column in wanted}
    assert all(second[column] is None for column in wanted)


async def test_csv(export: Export, types: str) -> None:
    exported = await export(types, "csv", options=BERLIN)
    names, first, second = csv.reader(io.StringIO(exported.content.decode()))
    row = dict(zip(names, first, strict=True))
    assert row.pop("id") == "1"
    for column, value in row.items():
        expected = IN_BERLIN[column]
        assert (value if isinstance(expected, str) else json.loads(value)) == expected, column
    assert second == ["2", *[""] * 9]


async def test_parquet_keeps_instants_and_names_the_zone(export: Export, types: str) -> None:
    exported = await export(types, "parquet", options=BERLIN)
    table = pq.read_table(io.BytesIO(exported.content))
    assert table.column("at").to_pylist() == [datetime(2026, 7, 1, 10, tzinfo=UTC), None]
    assert table.column("many").to_pylist()[0] == IN_BERLIN["many"]
    assert table.column("period").to_pylist()[0] == IN_BERLIN["period"]
    assert table.schema.metadata[b"timezone"] == b"Europe/Berlin"


async def test_excel_has_local_times_and_names_the_zone(export: Export, instants: str) -> None:
    exported = await export(instants, "excel", options=BERLIN)
    book: Any = load_workbook(io.BytesIO(exported.content))
    plain: Any = load_workbook(io.BytesIO((await export(instants, "excel")).content))
    assert "Europe/Berlin" in book.properties.subject
    assert [item.value for item in book.custom_doc_props.props] == ["Europe/Berlin"]
    assert not plain.custom_doc_props.props
    compared = 0
    rows = [list(each.worksheets[0].iter_rows(min_row=2, values_only=True)) for each in (book, plain)]
    for (_, local), (_, moment) in zip(*rows, strict=True):
        if isinstance(local, datetime) and isinstance(moment, datetime) and moment.year < 9999:
            expected = moment.replace(tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None)
            # In the last second of a day fractions are cut.
            is_cut = (23, 59, 59) in {(each.hour, each.minute, each.second) for each in (local, moment)}
            assert abs(local - expected) <= (timedelta(seconds=1) if is_cut else timedelta(milliseconds=2))
            compared += 1
        else:
            # Too early or too late for a date of Excel: a text with the offset.
            assert local is None or isinstance(local, datetime) or re.search(r"infinity|[+]0\d:", local)
    assert compared > 400


async def test_pdf_has_local_times_and_names_the_zone(export: Export, types: str) -> None:
    exported = await export(types, "pdf", columns=["id", "at", "day", "period"], options=BERLIN)
    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(exported.content)).pages)
    assert "times in Europe/Berlin" in text
    assert "2026-07-01 12:00:00" in text
    assert "2026-10-25 02:30:00" in text
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0[12]:00", text)
    assert IN_BERLIN["period"] in "".join(text.split())


FORMATS = ("csv", "json", "ndjson", "excel", "pdf", "parquet")


@pytest.mark.parametrize("name", FORMATS)
async def test_times_and_columns_of_dates_do_not_depend_on_the_zone_of_a_file(
    export: Export, database: asyncpg.Connection, schema: str, name: str
) -> None:
    """The columns of a view, too. Only a date for a column of timestamps is a day of the zone.

    What a filter selects does not depend on the format, but the statement could get its zone from it.
    """
    await database.execute(
        "SET TimeZone = 'UTC';"
        "CREATE TABLE visits (id int PRIMARY KEY, at timestamptz);"
        "INSERT INTO visits SELECT n, timestamptz '2026-07-01 00:00:00+00' + n * interval '1 hour'"
        " FROM generate_series(-5, 5) AS n;"
        "CREATE VIEW days AS SELECT id, at, at::date AS day FROM visits"
    )
    zones = [{}, BERLIN, {"timezone": "America/New_York"}, {"timezone": "Pacific/Apia"}]
    for filters in (
        {"at": {"gte": "2026-07-01[UTC]"}},
        {"day": "2026-07-01"},
        {"at": {"gte": "2026-07-01T00:00"}},
    ):
        for options in zones if name == "csv" else zones[-1:]:
            exported = await export(f"{schema}.days", name, filters=filters, options=options)
            assert exported.data.row_count == 6, (filters, options)


async def test_the_zone_of_the_dataset_is_the_default(export: Export, types: str) -> None:
    dataset = Dataset(name="things", table=types, timezone="Asia/Kolkata", order=("id",))
    exported = await export("", "ndjson", dataset=dataset)
    assert json.loads(exported.content.split(b"\n")[0])["at"] == "2026-07-01T15:30:00+05:30"
    assert exported.data.manifest["timezone"] == "Asia/Kolkata"
    asked = await export("", "ndjson", dataset=dataset, options={"timezone": "UTC"})
    assert json.loads(asked.content.split(b"\n")[0])["at"] == "2026-07-01T10:00:00+00:00"
    assert asked.data.manifest["timezone"] == "UTC"


@pytest.mark.parametrize("name", ["csv", "json", "ndjson"])
async def test_utc_by_name_gives_the_file_that_no_zone_gives(
    export: Export, instants: str, name: str
) -> None:
    dataset = Dataset(name="things", table=instants, order=("id",))
    usual = await export("", name, dataset=dataset)
    assert (await export("", name, dataset=dataset, options={"timezone": "UTC"})).content == usual.content
    assert "timezone" not in usual.data.manifest


@pytest.mark.parametrize("zone", ["Europe/Berlim", "europe/berlin", "localtime", "posix/UTC"])
async def test_unknown_zones_get_a_clear_error(export: Export, types: str, zone: str) -> None:
    with pytest.raises(Rejected, match=r"options.timezone: there is no time zone") as error:
        await export(types, "csv", options={"timezone": zone})
    assert error.value.code == "unknown_timezone"
    if zone.lower().startswith("europe"):
        assert "did you mean Europe/Berlin" in str(error.value)


async def test_a_zone_that_the_server_lacks_gets_a_clear_error(
    export: Export, types: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream_app import time_zones

    zone = find_zone("Europe/Berlin")
    newer = type(zone)("Europe/Nowhere", "Europe/Nowhere", zone.changes, zone.offsets)
    monkeypatch.setattr(time_zones, "known_zones", lambda: frozenset({"Europe/Nowhere"}))
    monkeypatch.setattr(time_zones, "_zone", lambda _: newer)
    with pytest.raises(Rejected, match="the source database does not know the time zone") as error:
        await export(types, "csv", options={"timezone": "Europe/Nowhere"})
    assert error.value.code == "unknown_timezone"
