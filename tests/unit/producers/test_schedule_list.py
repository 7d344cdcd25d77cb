"""The list of schedules as the command prints it."""

from typer.testing import CliRunner

from producers.__main__ import cli
from tests.unit.producers.fake_server import FakeServer

SCHEDULE = {
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
