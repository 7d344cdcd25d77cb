"""The commands about schedules: what they print, and what they send."""

from typing import Any

import pytest
from typer.testing import CliRunner, Result

from producers.__main__ import cli
from tests.unit.producers.fake_server import FakeServer

SCHEDULE: dict[str, Any] = {
    "id": "4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10",
    "export_type": "ledger",
    "format": "csv",
    "schedule": "daily",
    "time_of_day": "06:00",
    "timezone": "Europe/Berlin",
    "paused_reason": None,
}


def test_every_schedule_is_listed_with_its_owner(server: FakeServer) -> None:
    """people A8: an admin lists the schedules of all users."""
    schedules = [
        {**SCHEDULE, "user_id": "user-1", "next_runs": ["2026-11-27T06:00:00+01:00"]},
        {**SCHEDULE, "user_id": "user-2", "next_runs": []},
    ]
    server.add("/exports/schedules?limit=100", 200, {"schedules": schedules, "next_cursor": None})
    result = CliRunner().invoke(cli, ["schedule", "list", "--api-url", server.url, "--token", "t"])
    assert result.exit_code == 0, result.output
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    assert [line[1:] for line in lines] == [
        ["ledger csv", "daily 06:00 Europe/Berlin", "2026-11-27T06:00:00+01:00", "user-1"],
        ["ledger csv", "daily 06:00 Europe/Berlin", "paused", "user-2"],
    ]


@pytest.mark.parametrize(
    ("calendar", "shown"),
    [
        ({"schedule": "weekly", "day": 0}, "weekly Monday 06:00 Europe/Berlin"),
        ({"schedule": "weekly", "day": 6}, "weekly Sunday 06:00 Europe/Berlin"),
        ({"schedule": "monthly", "day": 31}, "monthly day 31 06:00 Europe/Berlin"),
        ({"schedule": "0 6 * * MON", "time_of_day": None, "day": None}, "0 6 * * MON Europe/Berlin"),
    ],
)
def test_the_day_of_a_schedule_is_listed(server: FakeServer, calendar: dict[str, Any], shown: str) -> None:
    schedules = [{**SCHEDULE, **calendar, "user_id": "user-1", "next_runs": []}]
    server.add("/exports/schedules?limit=100", 200, {"schedules": schedules, "next_cursor": None})
    result = CliRunner().invoke(cli, ["schedule", "list", "--api-url", server.url, "--token", "t"])
    assert result.stdout.split("  ")[2] == shown


WHOLE: dict[str, Any] = {
    **SCHEDULE,
    "user_id": "user-1",
    "name": "Ledger of the day",
    "filters": {"kind": "proof"},
    "columns": None,
    "options": {"bom": True},
    "split": None,
    "consistency": None,
    "scope": "own",
    "parameters": None,
    "day": None,
    "window": "previous_period",
    "window_from": "2026-11-25T23:00:00Z",
    "delay": 60,
    "catch_up": "last",
    "email_recipients": ["a@example.com"],
    "webhook": None,
    "active": False,
    "last_run": None,
    "next_runs": [],
}
PATH = f"/exports/schedules/{SCHEDULE['id']}"


def schedule(server: FakeServer, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["schedule", *arguments, "--api-url", server.url, "--token", "t"])


def test_a_schedule_is_edited(server: FakeServer) -> None:
    """Entry 13: only what is given is sent; a value is removed as null."""
    server.add(PATH, 200, WHOLE)
    changes = ["--name", "Ledger", "--at", "07:30", "--filter", "id>=5", "--clear", "recipients"]
    result = schedule(server, "edit", SCHEDULE["id"], *changes)
    assert result.exit_code == 0, result.output
    assert server.bodies[-1] == {
        "name": "Ledger",
        "time_of_day": "07:30",
        "filters": {"id": {"gte": "5"}},
        "email_recipients": None,
    }
    for wrong in ([], ["--clear", "user"]):
        result = schedule(server, "edit", SCHEDULE["id"], *wrong)
        assert result.exit_code == 2
    assert "allowed: name, filters" in result.stderr


def test_a_schedule_is_duplicated(server: FakeServer) -> None:
    """Entry 13: the copy has all values of a request, and none of the state."""
    server.add(PATH, 200, WHOLE)
    server.add("/exports/schedules", 201, WHOLE)
    assert schedule(server, "duplicate", SCHEDULE["id"], "--format", "excel").exit_code == 0
    assert server.bodies[-1] == {
        "export_type": "ledger",
        "format": "excel",
        "name": "Ledger of the day (copy)",
        "filters": {"kind": "proof"},
        "options": {"bom": True},
        "scope": "own",
        "schedule": "daily",
        "time_of_day": "06:00",
        "timezone": "Europe/Berlin",
        "window": "previous_period",
        "delay": 60,
        "catch_up": "last",
        "email_recipients": ["a@example.com"],
    }
    assert schedule(server, "duplicate", SCHEDULE["id"], "--every", "0 6 * * *").exit_code == 0
    assert "time_of_day" not in server.bodies[-1]


def test_past_runs_are_listed_with_their_jobs(server: FakeServer) -> None:
    """Entry 13."""
    one = {"run_at": "2026-11-26T05:00:00Z", "export_job_id": "job-1", "row_count": 1200}
    runs = [
        {**one, "status": "completed", "error": None, "file_name": "ledger.csv"},
        {**one, "status": "failed", "error": {"message": "too many rows"}, "row_count": None},
    ]
    server.add(f"{PATH}/runs?limit=20", 200, {"runs": runs, "next_cursor": None})
    lines = schedule(server, "runs", SCHEDULE["id"]).stdout.splitlines()
    assert lines == [
        "2026-11-26T05:00:00Z  job-1  completed  1,200 rows  ledger.csv",
        "2026-11-26T05:00:00Z  job-1  failed: too many rows",
    ]
