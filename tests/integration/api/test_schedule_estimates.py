"""Estimates of schedules (14) know the window of a run, and whose rows it has."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from api.schedules.estimates import usual_window
from stream_app.schedules.calendar import Calendar
from stream_app.schedules.windows import Window, Windowing
from tests.integration.api.conftest import Harness

NOW = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}:00+00:00")


@pytest.mark.parametrize(
    ("schedule", "windowing", "start", "end"),
    [
        ("daily", "previous_period", "11-25T00:00", "11-26T00:00"),
        ("weekly", "previous_period", "11-16T00:00", "11-23T00:00"),
        ("monthly", "previous_period", "10-01T00:00", "11-01T00:00"),
        ("0 */6 * * *", "previous_period", "11-26T06:00", "11-26T12:00"),
        ("daily", "since_last_run", "11-25T00:00", "11-26T00:00"),
        ("0 */6 * * *", "since_last_run", "11-26T06:00", "11-26T12:00"),
    ],
)
def test_the_window_of_a_usual_run_is_the_last_one_that_has_ended(
    schedule: str, windowing: str, start: str, end: str
) -> None:
    found = usual_window(Windowing(windowing), Calendar.of(schedule), NOW, None)
    assert found == Window(day(start), day(end))
    earlier = day("01-01T00:00")
    assert usual_window(Windowing(windowing), Calendar.of(schedule), NOW, earlier) == Window(
        earlier, day(end)
    )
    assert usual_window(Windowing(windowing), Calendar.of(schedule), NOW, NOW + timedelta(days=1)) == found


def test_a_schedule_without_a_window_has_none() -> None:
    assert usual_window(Windowing.NONE, Calendar.of("daily"), NOW, None) is None


async def estimate(client: httpx2.AsyncClient, suffix: str = "", **body: Any) -> dict[str, Any]:
    answer = await client.post(f"/exports/schedules{suffix}:estimate", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


ORDER: dict[str, Any] = {
    "export_type": "ledger",
    "format": "csv",
    "schedule": "monthly",
    "timezone": "Asia/Tokyo",
}


async def rows_between(dsn: str, window: dict[str, str], user_id: str) -> int:
    connection = await asyncpg.connect(dsn)
    query = "SELECT count(*) FROM ledger WHERE user_id = $1 AND created_at >= $2 AND created_at < $3"
    times = [datetime.fromisoformat(window[name]) for name in ("from", "to")]
    found: int = await connection.fetchval(query, user_id, *times)
    await connection.close()
    return found


async def test_an_estimate_counts_the_rows_of_the_window(api: Harness, source_dsn: str) -> None:
    async with api.user(user_id="user-1") as client:
        whole = await estimate(client, **ORDER)
        assert whole["window"] is None
        since = "2020-01-01T00:00:00Z"
        found = await estimate(client, **ORDER, window="previous_period", window_from=since)
        rows = await rows_between(source_dsn, found["window"], "user-1")
        assert (found["rows"], found["exact"]) == (rows, True)
        assert 0 < rows <= whole["rows"]
        month = await estimate(client, **ORDER, window="previous_period")
        assert (month["rows"], month["window"]["timezone"]) == (
            await rows_between(source_dsn, month["window"], "user-1"),
            "Asia/Tokyo",
        )
        assert month["window"]["from"].endswith("-01T00:00:00+09:00")


async def test_an_estimate_of_a_change_has_the_rows_of_the_owner(api: Harness) -> None:
    async with api.user(user_id="user-1") as owner, api.user("exports:admin") as admin:
        made = (await owner.post("/exports/schedules", json=ORDER)).json()
        own = await estimate(owner, f"/{made['id']}", format="json")
        assert own["rows"] == (await estimate(owner, **ORDER))["rows"] > 0
        assert (await estimate(admin, f"/{made['id']}", format="json"))["rows"] == own["rows"]
        narrow = await estimate(owner, f"/{made['id']}", filters={"kind": "nothing"})
        assert (narrow["rows"], narrow["exact"]) == (0, True)
        assert (await owner.get(f"/exports/schedules/{made['id']}")).json() == made, "nothing was changed"


async def test_an_estimate_refuses_the_same_schedules_as_post(api: Harness) -> None:
    async with api.user() as client:
        for change in (
            {"schedule": "sometimes"},
            {"timezone": "Mars/Base"},
            {"window": "previous_period", "filters": {"created_at": {"gte": "2026-01-01"}}},
            {"window_from": "2026-01-01T00:00:00Z"},
            {"columns": ["nope"]},
            {"email_recipients": ["nobody"]},
        ):
            answers = [
                (await client.post(f"/exports/schedules{suffix}", json={**ORDER, **change}))
                for suffix in (":estimate", "")
            ]
            problems = [
                (answer.status_code, answer.json()["code"], answer.json()["detail"]) for answer in answers
            ]
            assert problems[0] == problems[1]
            assert problems[0][0] == 422
