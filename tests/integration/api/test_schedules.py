"""Schedules over HTTP: create, read, change, run, delete, and their owners."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import httpx2
import pytest
from sqlalchemy import text, update

import api.schedules.changes as api_schedules
from producers.tokens import sign_token
from stream_app.jobs.queue import JobQueue
from stream_app.schedules.models import ScheduledExport
from stream_app.schedules.outcomes import apply_run_outcomes
from stream_app.schedules.store import ScheduleStore
from streaming_exporter.errors import Retryable
from tests.integration.api.conftest import Harness, changed, client_of, running


def order(**changes: Any) -> dict[str, Any]:
    return {"export_type": "ledger", "format": "csv", "schedule": "daily", **changes}


async def made(client: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/exports/schedules", json=order(**changes))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/exports/schedules/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


def path(schedule: dict[str, Any], suffix: str = "") -> str:
    return f"/exports/schedules/{schedule['id']}{suffix}"


async def test_a_schedule_has_the_requested_values_and_its_next_five_runs(api: Harness) -> None:
    user = api.user(user_id="user-1")
    wanted = {
        "name": "Proofs of the week",
        "schedule": "weekly",
        "day": 2,
        "time_of_day": "06:30",
        "timezone": "Europe/Berlin",
        "window": "previous_period",
        "delay": 900,
        "catch_up": "all",
        "filters": {"kind": "proof"},
        "columns": ["id", "kind"],
        "options": {"compression": "gzip"},
        "email_recipients": ["Team@Example.com"],
    }
    schedule = await made(user, **wanted)
    assert {name: schedule[name] for name in wanted} == wanted | {"email_recipients": ["Team@example.com"]}
    assert (schedule["user_id"], schedule["active"], schedule["last_run"]) == ("user-1", True, None)
    runs = [datetime.fromisoformat(run) for run in schedule["next_runs"]]
    assert len(runs) == 5
    assert all((run.weekday(), run.hour, run.minute) == (2, 6, 30) for run in runs)
    assert datetime.fromisoformat(schedule["next_run"]) == runs[0] > datetime.now(UTC)
    assert (await user.get(path(schedule))).json() == schedule
    assert (await made(user, schedule="*/5 * * * *"))["time_of_day"] is None


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"schedule": "hourly"}, "schedule", "bad_schedule"),
        ({"schedule": "0 0 31 2 *"}, "schedule", "bad_schedule"),
        ({"schedule": "0 9 * * *", "time_of_day": "09:00"}, "time_of_day", "invalid_request"),
        ({"schedule": "weekly", "day": 7}, "day", "bad_day"),
        ({"time_of_day": "25:00"}, "time_of_day", "bad_time_of_day"),
        ({"timezone": "Moon/Base"}, "timezone", "unknown_timezone"),
        ({"window": "last_week"}, "window", "invalid_request"),
        ({"window_from": "2026-01-01T00:00:00Z"}, "window_from", "invalid_request"),
        (
            {"window_from": "2026-01-01T00:00:00", "window": "since_last_run"},
            "window_from",
            "invalid_request",
        ),
        *(
            ({"window_from": moment, "window": "since_last_run"}, "window_from", "invalid_request")
            for moment in (
                "0001-01-01T00:00:00Z",
                "0001-01-01T00:00:00+05:00",
                "1969-12-31T23:59:59Z",
                "2100-01-01T00:00:01Z",
                "9999-12-31T23:59:59Z",
                "9999-12-31T23:59:59-05:00",
            )
        ),
        ({"window": "since_last_run", "filters": {"created_at": "today"}}, "filters.created_at", None),
        ({"delay": -1}, "delay", "invalid_request"),
        ({"catch_up": "some"}, "catch_up", "invalid_request"),
        ({"export_type": "nothing"}, "export_type", "unknown_dataset"),
        ({"format": "doc"}, "format", "unknown_format"),
        ({"columns": ["nothing"]}, "columns.0", "unknown_column"),
        ({"filters": {"nothing": 1}}, "filters.nothing", "unknown_column"),
        ({"filters": {"created_at": {"gte": "now-7 days"}}}, "filters.created_at.gte", "bad_filter_value"),
        ({"email_recipients": ["nobody"]}, "recipients.0", "bad_recipient"),
        ({"email_recipients": ["a@example.com"] * 51}, "email_recipients", "invalid_request"),
        ({"scope": "all"}, "scope", "scope_not_allowed"),
        ({"every": "day"}, "every", "invalid_request"),
    ],
)
async def test_an_invalid_field_is_refused_by_its_name(
    api: Harness, changes: dict[str, Any], field: str, code: str | None
) -> None:
    answer = await api.user().post("/exports/schedules", json=order(**changes))
    assert answer.status_code in (403, 422), answer.text
    problem = answer.json()
    assert problem["field"] == field
    assert code in (None, problem["code"])
    assert problem["detail"]


async def test_relative_filters_are_accepted_and_kept_as_they_are(api: Harness) -> None:
    schedule = await made(api.user(), filters={"created_at": {"gte": "start_of_month-1mo", "lt": "today"}})
    assert schedule["filters"] == {"created_at": {"gte": "start_of_month-1mo", "lt": "today"}}


CHATS = [
    "slack:https://hooks.slack.com/services/T0/B0/sEcReT",
    "teams:https://x.logic.azure.com/workflows/1?sig=sEcReT",
]


async def test_the_urls_of_chats_are_shown_to_nobody_and_stay_in_a_change(api: Harness) -> None:
    owner, admin = api.user(user_id="chats"), api.user(user_id="root", roles=["exports:admin"])
    schedule = await made(owner, email_recipients=["a@example.com", *CHATS])
    shown = schedule["email_recipients"]
    assert [item.partition("…")[0] for item in shown] == [
        "a@example.com",
        "slack:https://hooks.slack.com/",
        "teams:https://x.logic.azure.com/",
    ]
    for client in (owner, admin):
        for place in (path(schedule), "/exports/schedules?all=true"):
            assert "sEcReT" not in (await client.get(place)).text
    changed = await owner.patch(path(schedule), json={"recipients": [shown[2], "b@example.com"], "name": "x"})
    assert changed.json()["email_recipients"] == [shown[2], "b@example.com"]
    async with api.engine.begin() as connection:
        query = text("SELECT email_recipients FROM scheduled_exports WHERE id = :id")
        stored = (await connection.execute(query, {"id": schedule["id"]})).scalar_one()
    assert stored == [CHATS[1], "b@example.com"]
    refused = await owner.patch(path(schedule), json={"recipients": [shown[1]]})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_chat"), "the schedule has it no more"
    for bad in (CHATS[0], [CHATS[0], 1], {"x": CHATS[0]}):
        answer = await owner.post("/exports/schedules", json=order(recipients=bad))
        assert answer.status_code == 422
        assert "sEcReT" not in answer.text


async def test_schedules_of_other_users_are_404(api: Harness) -> None:
    schedule = await made(api.user())
    stranger = api.user()
    for method, suffix in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", ":run"), ("GET", "/runs")]:
        body = {"active": False} if method == "PATCH" else None
        answer = await stranger.request(method, path(schedule, suffix), json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), method
    assert (await stranger.get("/exports/schedules")).json() == {"schedules": [], "next_cursor": None}
    assert (await stranger.get("/exports/schedules?user_id=else")).status_code == 403
    assert (await api.user("exports:admin").get(path(schedule))).status_code == 200
    assert (await client_of(api.app, None).get(path(schedule))).status_code == 401


async def test_pages_lead_through_all_schedules(api: Harness) -> None:
    user = api.user()
    ids = [(await made(user))["id"] for _ in range(5)]
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await user.get(f"/exports/schedules?limit=2{cursor and f'&cursor={cursor}'}")).json()
        found += [item["id"] for item in page["schedules"]]
        cursor = page["next_cursor"]
    assert found == ids[::-1]
    await user.patch(f"/exports/schedules/{ids[0]}", json={"active": False})
    paused = (await user.get("/exports/schedules?active=false")).json()["schedules"]
    assert [item["id"] for item in paused] == [ids[0]]


async def test_pausing_and_resuming(api: Harness) -> None:
    user = api.user()
    schedule = await made(user, schedule="*/5 * * * *")
    paused = (await user.patch(path(schedule), json={"active": False})).json()
    assert (paused["active"], paused["next_run"], paused["next_runs"]) == (False, None, [])
    assert paused["paused_at"]
    async with api.engine.begin() as connection:
        await connection.execute(
            text("UPDATE scheduled_exports SET failures = 4, paused_reason = 'x', paused_code = 'y'")
        )
    before = datetime.now(UTC)
    resumed = (await user.patch(path(schedule), json={"active": True})).json()
    assert (resumed["active"], resumed["failures"]) == (True, 0)
    assert (resumed["paused_at"], resumed["paused_reason"], resumed["paused_code"]) == (None, None, None)
    assert datetime.fromisoformat(resumed["next_run"]) > before


async def test_pausing_needs_no_dataset_no_source_and_no_role(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"user-{uuid4()}"
    with_role, without = api.user("exports:all", user_id=name), api.user(user_id=name)
    lapsed, gone, away = await made(with_role, scope="all"), await made(without), await made(without)
    async with api.engine.begin() as connection:
        statement = "UPDATE scheduled_exports SET export_type = 'gone' WHERE id = :id"
        await connection.execute(text(statement), {"id": UUID(gone["id"])})

    async def unreachable(*_: object) -> None:
        raise Retryable("the source database is away")

    monkeypatch.setattr("api.schedules.changes.check_against_table", unreachable)
    for schedule in (lapsed, gone, away):
        answer = await without.patch(path(schedule), json={"active": False})
        assert answer.status_code == 200, answer.text
        paused = answer.json()
        assert (paused["active"], paused["next_run"], paused["paused_reason"]) == (False, None, None)
        assert (await without.patch(path(schedule), json={"active": False})).json() == paused
        assert (await without.patch(path(schedule), json={"active": True})).status_code in (403, 422, 503)


@pytest.mark.parametrize(
    ("meanwhile", "body", "expected"),
    [
        ("active = false, next_run = NULL", {"format": "json"}, {"active": False, "next_run": None}),
        ("\"window\" = 'none', window_start = NULL", {"format": "json"}, {"window": "none"}),
        ('filters = \'{"kind": "proof"}\'', {"format": "json"}, {"filters": {"kind": "proof"}}),
        ("columns = '[\"id\"]'", {"active": False, "format": "json"}, {"columns": ["id"], "active": False}),
    ],
)
async def test_a_change_between_reading_and_writing_is_not_lost(
    api: Harness, monkeypatch: pytest.MonkeyPatch, meanwhile: str, body: Any, expected: dict[str, Any]
) -> None:
    user = api.user()
    schedule = await made(user, window="since_last_run")
    check: Any = vars(api_schedules)["check_against_table"]
    changes = [meanwhile]

    async def slow(*arguments: Any) -> None:
        await check(*arguments)
        if changes:
            async with api.engine.begin() as connection:
                statement = f"UPDATE scheduled_exports SET {changes.pop()} WHERE id = :id"
                await connection.execute(text(statement), {"id": UUID(schedule["id"])})

    monkeypatch.setattr(api_schedules, "check_against_table", slow)
    now = (await user.patch(path(schedule), json=body)).json()
    assert changes == []
    assert {name: now[name] for name in expected} == expected
    assert now["format"] == "json"


async def test_every_way_to_resume_sets_the_next_run_and_resets_the_failures(api: Harness) -> None:
    user = api.user()
    schedule = await made(user)
    async with api.engine.begin() as connection:
        statement = "UPDATE scheduled_exports SET next_run = NULL WHERE id = :id"
        await connection.execute(text(statement), {"id": UUID(schedule["id"])})
    assert (await user.patch(path(schedule), json={"format": "json"})).json()["next_run"] is not None
    async with api.engine.begin() as connection:
        statement = (
            "UPDATE scheduled_exports SET active = false, next_run = NULL, failures = 5, "
            "paused_reason = 'x', paused_at = now() WHERE id = :id"
        )
        await connection.execute(text(statement), {"id": UUID(schedule["id"])})
    # As for every other field, null is the default, which is active.
    resumed = (await user.patch(path(schedule), json={"active": None})).json()
    assert resumed["active"] is True
    assert resumed["next_run"] is not None
    assert [resumed[name] for name in ("failures", "paused_reason", "paused_at")] == [0, None, None]


async def test_a_change_is_checked_as_a_whole_and_moves_the_next_run(api: Harness) -> None:
    user = api.user()
    schedule = await made(user, time_of_day="09:00", window="since_last_run", filters={"kind": "proof"})
    changes = {"schedule": "0 12 * * *", "timezone": "Asia/Tokyo", "columns": ["id"], "filters": None}
    now = (await user.patch(path(schedule), json=changes)).json()
    assert (now["schedule"], now["time_of_day"], now["columns"], now["filters"]) == (
        "0 12 * * *",
        None,
        ["id"],
        None,
    )
    assert datetime.fromisoformat(now["next_run"]).astimezone(UTC).hour == 3
    assert (now["window"], now["window_from"]) == ("since_last_run", schedule["window_from"])
    same = (await user.patch(path(schedule), json={"format": "json"})).json()
    assert (same["format"], same["next_run"]) == ("json", now["next_run"])
    for body, field in [
        ({"filters": {"created_at": "today"}}, "filters.created_at"),
        ({"schedule": "never"}, "schedule"),
        ({"export_type": "proofs"}, "export_type"),
        ({"format": None}, "format"),
    ]:
        answer = await user.patch(path(schedule), json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert (await user.get(path(schedule))).json() == same


async def test_a_deleted_schedule_is_gone(api: Harness) -> None:
    user = api.user()
    schedule = await made(user)
    assert (await user.delete(path(schedule))).status_code == 204
    assert (await user.delete(path(schedule))).status_code == 404
    assert (await user.get(path(schedule))).status_code == 404


async def test_a_run_now_is_a_job_of_the_schedule(api: Harness) -> None:
    user = api.user()
    values = {"window": "previous_period", "timezone": "Asia/Tokyo", "active": False}
    schedule = await made(user, **values, name="Proofs of the day")
    answer = await user.post(path(schedule, ":run"), headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202, answer.text
    again = await user.post(path(schedule, ":run"), headers={"Idempotency-Key": "one"})
    assert again.json() == answer.json()
    job_id = UUID(answer.json()["export_job_id"])
    assert answer.headers["location"] == f"/exports/jobs/{job_id}"
    job = await api.queries.get(job_id)
    assert job is not None
    assert (str(job.schedule_id), job.priority, job.status) == (schedule["id"], 1, "pending")
    assert job.admitted_at is None
    limits = job.filters["created_at"]
    assert limits["lt"].endswith("T15:00:00Z")
    length = datetime.fromisoformat(limits["lt"]) - datetime.fromisoformat(limits["gte"])
    assert length == timedelta(days=1)
    await api.app.state.services.relay.settle()
    (event,) = await api.published(job_id)
    assert (event.source, event.data["priority"]) == (f"/exporter/schedules/{schedule['id']}", "normal")
    assert event.data["filters"] == job.filters
    seen = (await user.get(f"/exports/jobs/{job_id}")).json()
    assert (seen["name"], event.data["name"]) == ("Proofs of the day", "Proofs of the day")
    assert (seen["schedule_id"], seen["window"]["timezone"]) == (schedule["id"], "Asia/Tokyo")
    assert datetime.fromisoformat(seen["run_at"]) == job.run_at


async def test_a_run_now_has_the_day_of_its_zone_however_it_is_claimed(api: Harness) -> None:
    """A worker with nothing else to do claims it with its admission. Otherwise it waits for a claim."""
    user, zone = api.user(), "Pacific/Kiritimati"
    schedule = await made(user, window="none", timezone=zone)
    queue, services = JobQueue.of(api.settings, api.engine), api.app.state.services
    for at_once in (True, False):
        job_id = UUID((await user.post(path(schedule, ":run"))).json()["export_job_id"])
        await services.relay.settle()
        (event,) = await api.published(job_id)
        now = datetime.now(UTC)
        job = replace(services.validator.job(event, now=now), admitted_at=now)
        if at_once:
            claims = (await queue.admission.admit_and_claim("w", job)).claims
        else:
            await queue.admission.admit([job])
            claims = await queue.claim("w", 10)
        (claim,) = claims
        known = await api.queries.get(job_id)
        assert known is not None
        assert known.run_at is not None
        assert claim.job_id == job_id
        assert claim.run_day == known.run_at.astimezone(ZoneInfo(zone)).date(), at_once


async def test_names_of_exports_and_schedules(api: Harness) -> None:
    """A name (12) is kept without the spaces around it; a blank one is none; the error names the field."""
    user = api.user()
    body = {"export_type": "ledger", "format": "csv"}
    job = (await user.post("/exports/jobs", json={**body, "name": " Ledger October "})).json()
    assert (await user.get(f"/exports/jobs/{job['export_job_id']}")).json()["name"] == "Ledger October"
    schedule = await made(user, name="Ledger of the month")
    changed = [
        (await user.patch(path(schedule), json={"name": name})).json()["name"]
        for name in ("Monthly ledger", " ", "Ledger", None)
    ]
    assert changed == ["Monthly ledger", None, "Ledger", None]
    for call, where in (
        (user.post, "/exports/jobs"),
        (user.post, "/exports/schedules"),
        (user.patch, path(schedule)),
    ):
        for name in ("a\nb", "x" * 201, 7):
            answer = await call(where, json={**(body if call == user.post else {}), "name": name})
            assert (answer.status_code, answer.json()["field"]) == (422, "name"), answer.text


async def test_additional_runs_that_wait_for_late_rows_count_for_the_limit(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a user could start any number of them."""
    services = api.app.state.services
    limited = services.settings.model_copy(update={"user_pending_limit": 2})
    monkeypatch.setattr(api.app.state, "services", replace(services, settings=limited))
    user = api.user()
    schedule = await made(user, window="previous_period", delay=7 * 24 * 3600)
    assert [(await user.post(path(schedule, ":run"))).status_code for _ in range(3)] == [202, 202, 429]


async def test_runs_that_start_no_job_are_not_announced(api: Harness) -> None:
    """Their rows would all lie before the begin of the next window."""
    user = api.user()
    schedule = await made(user, window="since_last_run", window_from="2099-01-01T00:00:00Z")
    runs = [datetime.fromisoformat(run) for run in schedule["next_runs"]]
    assert runs == [datetime(2099, 1, day, tzinfo=UTC) for day in range(2, 7)]


async def test_windows_of_runs_now_have_no_gaps_and_no_overlaps(api: Harness) -> None:
    user = api.user()
    schedule = await made(user, window="since_last_run", window_from="2026-01-01T00:00:00Z")
    for _ in range(2):
        assert (await user.post(path(schedule, ":run"))).status_code == 202
        await asyncio.sleep(1.1)
    runs = (await user.get(path(schedule, "/runs?limit=1"))).json()
    older = (await user.get(path(schedule, f"/runs?limit=1&cursor={runs['next_cursor']}"))).json()
    (second,), (first,) = runs["runs"], older["runs"]
    assert first["window"]["from"] == "2026-01-01T00:00:00+00:00"
    assert first["window"]["to"] == second["window"]["from"] < second["window"]["to"]
    assert older["next_cursor"] is None
    await user.patch(path(schedule), json={"delay": 3600})
    answer = await user.post(path(schedule, ":run"))
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_new")


@pytest.mark.parametrize(("window", "moves"), [("since_last_run", True), ("previous_period", False)], ids=str)
@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_failed_run_now_returns_only_its_own_window(
    api: Harness, window: str, moves: bool, status: str
) -> None:
    user = api.user()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = today - timedelta(days=1) if moves else today
    schedule = await made(user, window=window, window_from=begin.isoformat())
    job_id = (await user.post(path(schedule, ":run"))).json()["export_job_id"]
    moved = (await user.get(path(schedule))).json()["window_from"]
    assert (datetime.fromisoformat(moved) == begin) != moves
    await api.set(job_id, status=status)
    async with api.engine.begin() as connection:
        await apply_run_outcomes(connection, [UUID(job_id)], max_failures=9)
    schedule = (await user.get(path(schedule))).json()
    assert datetime.fromisoformat(schedule["window_from"]) == begin


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"window": "moon"}, "cannot be planned"),
        ({"window": "previous_period", "column_kinds": {"created_at": "moon"}}, "cannot be planned"),
        ({"export_type": "gone"}, "there is no dataset 'gone'"),
        ({"format": "gone"}, "there is no format 'gone'"),
        ({"filters": [1]}, "cannot be planned"),
        ({"user_id": ""}, "cannot be planned"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_an_invalid_stored_schedule_is_refused_with_the_reason(
    api: Harness, stored: dict[str, Any], reason: str
) -> None:
    schedule = await made(api.user())
    statement = update(ScheduledExport).where(ScheduledExport.id == UUID(schedule["id"]))
    async with api.engine.begin() as connection:
        await connection.execute(statement.values(**stored))
    answer = await api.user("exports:admin").post(path(schedule, ":run"))
    assert (answer.status_code, answer.json()["code"]) == (409, "schedule_unusable")
    assert reason in answer.json()["detail"]
    assert await api.count() == 0


async def test_the_list_of_runs_has_their_outcomes(api: Harness) -> None:
    user = api.user()
    schedule = await made(user)
    job_id = (await user.post(path(schedule, ":run"))).json()["export_job_id"]
    start = datetime(2026, 3, 1, 6, tzinfo=UTC)
    times = {"started_at": start, "completed_at": start + timedelta(seconds=2.5)}
    await api.set(job_id, status="completed", row_count=7, file_size=99, **times)
    (run,) = (await user.get(path(schedule, "/runs"))).json()["runs"]
    assert (run["status"], run["row_count"], run["file_size"], run["seconds"]) == ("completed", 7, 99, 2.5)
    await api.set(job_id, status="failed", error_code="too_many_rows", error_message="too many")
    (run,) = (await user.get(path(schedule, "/runs"))).json()["runs"]
    assert run["error"] == {"code": "too_many_rows", "message": "too many"}


async def test_scope_all_needs_the_role_and_only_its_owner_renews_it(api: Harness) -> None:
    name = f"user-{uuid4()}"
    with_role, without = api.user("exports:all", user_id=name), api.user(user_id=name)
    schedule = await made(with_role, scope="all")
    assert (await without.patch(path(schedule), json={"format": "json"})).status_code == 403
    assert (await without.patch(path(schedule), json={"scope": "own"})).status_code == 200
    admin = api.user("exports:admin")
    assert (await admin.patch(path(schedule), json={"scope": "all"})).status_code == 403
    assert (await with_role.patch(path(schedule), json={"scope": "all"})).status_code == 200
    assert (await admin.patch(path(schedule), json={"format": "json"})).status_code == 200
    async with api.engine.begin() as connection:
        await connection.execute(text("UPDATE scheduled_exports SET all_rows_until = now()"))
    answer = await admin.post(path(schedule, ":run"))
    assert (answer.status_code, answer.json()["code"]) == (403, "grant_lapsed")
    assert (await with_role.post(path(schedule, ":run"))).status_code == 202
    assert (await admin.post(path(schedule, ":run"))).status_code == 202


@pytest.mark.parametrize(
    ("method", "suffix", "body", "status"),
    [
        ("POST", ":run", None, 403),
        ("PATCH", "", {"format": "json"}, 403),
        ("PATCH", "", {"active": False}, 200),
        ("PATCH", "", {"active": True}, 403),
    ],
)
async def test_a_call_of_the_owner_without_the_role_ends_the_grant(
    api: Harness, method: str, suffix: str, body: Any, status: int
) -> None:
    """S6: this holds for every call, whatever the response is."""
    name = f"user-{uuid4()}"
    with_role, without = api.user("exports:all", user_id=name), api.user(user_id=name)
    schedule = await made(with_role, scope="all")
    assert (await with_role.post(path(schedule, ":run"))).status_code == 202
    answer = await without.request(method, path(schedule, suffix), json=body)
    assert answer.status_code == status, answer.text
    row = await ScheduleStore(api.engine).get(UUID(schedule["id"]), user_id=None)
    assert row is not None
    assert row.all_rows_until is None
    shown = (await without.get(path(schedule))).json()["granted_until"]
    assert datetime.fromisoformat(shown) <= api.app.state.services.clock.now()
    answer = await api.user("exports:admin").post(path(schedule, ":run"))
    assert (answer.status_code, answer.json()["code"]) == (403, "grant_lapsed")
    assert (await with_role.post(path(schedule, ":run"))).status_code == 202
    renewed = (await with_role.get(path(schedule))).json()["granted_until"]
    assert datetime.fromisoformat(renewed) > datetime.now(UTC) + timedelta(days=1)


async def test_settings_limit_who_can_export_all_rows_and_how_many_schedules_a_user_has(
    api: Harness,
) -> None:
    settings = changed(api.settings, schedule_all_users="somebody", user_schedule_limit=1)
    async with running(settings) as app:
        user = client_of(app, sign_token(settings, f"user-{uuid4()}", ["exports:all"]))
        answer = await user.post("/exports/schedules", json=order(scope="all"))
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed")
        await made(user)
        answer = await user.post("/exports/schedules", json=order())
        assert (answer.status_code, answer.json()["code"]) == (409, "too_many_schedules")
