"""Time zones of files."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.time_zones import BEGIN, END, check_zone_name, find_zone, known_zones
from streaming_exporter.errors import Rejected

NAMES = ["Europe/Berlin", "America/Noronha", "Africa/Casablanca", "Asia/Kolkata", "Africa/Monrovia", "CET"]


@given(
    name=st.sampled_from(NAMES),
    moment=st.datetimes(BEGIN.replace(tzinfo=None), END.replace(tzinfo=None) - timedelta(seconds=1)),
)
def test_the_changes_give_the_offset_of_each_instant(name: str, moment: datetime) -> None:
    zone, instant = find_zone(name), moment.replace(tzinfo=UTC)
    position = sum(change <= instant for change in zone.changes) - 1
    offset = instant.astimezone(ZoneInfo(zone.sql_name)).utcoffset()
    assert offset == timedelta(seconds=zone.offsets[position])


def test_changes_are_in_order_and_change_something() -> None:
    for name in NAMES:
        zone = find_zone(name)
        assert zone.changes[0] == BEGIN
        assert len(zone.changes) == len(zone.offsets)
        assert all(first < second for first, second in pairwise(zone.changes))
        assert all(first != second for first, second in pairwise(zone.offsets))


def test_abbreviations_stand_for_zones_with_summer_time() -> None:
    assert find_zone("CET").sql_name == "Europe/Brussels"
    assert find_zone("CET").offsets == find_zone("Europe/Brussels").offsets
    assert find_zone("Europe/Berlin").sql_name == "Europe/Berlin"


def test_differing_data_are_not_used() -> None:
    zone = find_zone("Europe/Berlin")
    kept = zone.until(datetime(2026, 7, 1, tzinfo=UTC))
    assert kept.changes == tuple(change for change in zone.changes if change < kept.end)
    assert kept.end < datetime(2026, 7, 1, tzinfo=UTC)
    assert not zone.until(BEGIN).changes


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "localtime", "../etc/passwd", "europe/berlin", "+02:00"]
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(Rejected, match="there is no time zone") as error:
        check_zone_name(name)
    assert (error.value.code, error.value.field) == ("unknown_timezone", "options.timezone")
    assert name not in known_zones()
