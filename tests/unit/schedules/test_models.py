"""The typed rows have the columns of their tables."""

from dataclasses import fields

from stream_app.schedules.models import DueSchedule, Gap, Schedule, ScheduledExport, ScheduleGap


def names(record: type[Schedule | Gap]) -> set[str]:
    return {field.name for field in fields(record)}


def test_a_typed_row_has_the_columns_of_its_table() -> None:
    columns = set(ScheduledExport.__table__.columns.keys())
    assert names(Schedule) == columns
    assert names(DueSchedule) == columns | {"version", "now"}
    assert names(Gap) == set(ScheduleGap.__table__.columns.keys())
