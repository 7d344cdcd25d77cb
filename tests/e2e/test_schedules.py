"""From the command line through a tick to a file."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
from typer.testing import CliRunner

from dev.postgres import SOURCE
from producers.__main__ import cli
from producers.tokens import sign_token
from tests.e2e.conftest import System
from tests.stacks import settings_of
from tests.waiting import patient, until

USER = "schedule-user"


async def test_a_tick_makes_a_file_of_the_windows_rows(system: System) -> None:
    marks = await rows_around_midnight(system)
    schedule_id = command(
        system, "create", "--export-type", "ledger", "--format", "csv", "--schedule", "daily",
        "--time-of-day", "00:00", "--window", "previous_period", "--columns", "id,created_at",
    ).splitlines()[0]  # fmt: skip
    await let_it_be_due(system, schedule_id)
    ticker = system.stack.start_ticker()
    try:
        (run,) = finished_runs(system, schedule_id)
    finally:
        ticker.stop()
    assert run["status"] == "completed", run
    rows = list(csv.DictReader(io.StringIO(system.file(run["export_job_id"]).decode())))
    assert len(rows) == run["row_count"] == 3
    start, end = (datetime.fromisoformat(run["window"][name]) for name in ("from", "to"))
    assert end - start == timedelta(days=1)
    assert all(start <= datetime.fromisoformat(row["created_at"]) < end for row in rows)
    assert len(marks) == 5
    manifest = system.client.get(f"/exports/jobs/{run['export_job_id']}/manifest").json()
    assert manifest["window"] == run["window"]
    assert set(manifest["filters"]["created_at"]) == {"gte", "lt"}
    shown = json.loads(command(system, "show", schedule_id))
    assert len(shown["next_runs"]) == 5
    assert shown["last_run"] is not None
    assert [item["export_job_id"] for item in shown["last_runs"]] == [run["export_job_id"]]


def test_commands_pause_resume_run_list_and_delete(system: System) -> None:
    made = command(
        system, "create", "--export-type", "proofs", "--format", "json", "--schedule", "0 9 * * MON",
        "--filter", "created_at:gte=now-7d",
    ).splitlines()[0]  # fmt: skip
    assert f"{made}  proofs json  0 9 * * MON UTC  " in command(system, "list")
    command(system, "pause", made)
    assert f"{made}  proofs json  0 9 * * MON UTC  paused" in command(system, "list")
    job = system.ended(command(system, "run", made))
    assert job["status"] == "completed"
    command(system, "resume", made)
    assert json.loads(command(system, "show", made))["active"] is True
    command(system, "delete", made)
    assert made not in command(system, "list")


def test_relative_filters_count_from_the_time_of_the_request(system: System) -> None:
    job_id = system.ask(
        export_type="ledger", format="csv", scope="all", filters={"created_at": {"gte": "now-7d"}}
    )
    job = system.ended(job_id)
    assert job["status"] == "completed", job
    manifest = system.client.get(f"/exports/jobs/{job_id}/manifest").json()
    since = datetime.fromisoformat(manifest["filters"]["created_at"]["gte"])
    asked = datetime.fromisoformat(job["created_at"])
    assert asked - timedelta(days=7, seconds=1) <= since <= asked - timedelta(days=7)


def command(system: System, name: str, *arguments: str) -> str:
    """Run ``exporter schedule``; return its standard output."""
    who = ["--user-id", USER, "--api-url", system.api.url]
    done = CliRunner().invoke(cli, ["schedule", name, *arguments, *who], env=system.stack.settings())
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


async def rows_around_midnight(system: System) -> list[Any]:
    """Rows of the user: three within yesterday (UTC), one just before and one just after it."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yesterday, moment = today - timedelta(days=1), timedelta(microseconds=1)
    times = [yesterday - moment, yesterday, yesterday + timedelta(hours=12), today - moment, today]
    connection = await asyncpg.connect(system.stack.postgres.admin_url(SOURCE))
    columns = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'ledger' AND column_name "
        "NOT IN ('id', 'user_id', 'created_at') AND table_schema = 'public'"
    )
    rest = ", ".join(f'"{row["column_name"]}"' for row in columns)
    await connection.execute("DELETE FROM ledger WHERE user_id = $1", USER)
    for number, time_of_row in enumerate(times, 10**12):
        await connection.execute(
            f"INSERT INTO ledger (id, user_id, created_at, {rest}) "
            f"SELECT $1, $2, $3, {rest} FROM ledger LIMIT 1",
            number,
            USER,
            time_of_row,
        )
    await connection.close()
    return times


async def let_it_be_due(system: System, schedule_id: str) -> None:
    """Change the schedule as if it had been created yesterday, so that the next tick is a little late."""
    connection = await asyncpg.connect(system.stack.settings()["EXPORTER_DATABASE_URL"])
    await connection.execute(
        "UPDATE scheduled_exports SET next_run = date_trunc('day', now(), 'UTC') WHERE id = $1", schedule_id
    )
    await connection.close()


def finished_runs(system: System, schedule_id: str) -> list[dict[str, Any]]:
    token = sign_token(settings_of(system.stack), USER)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=system.api.url, headers=headers, timeout=patient(30)) as client:

        def look() -> list[dict[str, Any]] | None:
            runs: list[dict[str, Any]] = client.get(f"/exports/schedules/{schedule_id}/runs").json()["runs"]
            return runs if all(run["completed_at"] for run in runs) else None

        return until(look)
