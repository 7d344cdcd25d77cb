"""The Idempotency-Key of a schedule: a repeated creation makes no second one."""

import asyncio
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from sqlalchemy import update

import api.schedules.changes as api_schedules
from stream_app.schedules.models import ScheduledExport
from stream_app.schedules.store import ScheduleStore
from streaming_exporter.errors import InDoubt
from tests.integration.api.conftest import Harness, changed, running
from tests.integration.api.test_schedules import order, path

EVERYTHING: dict[str, Any] = {
    "name": "Proofs",
    "schedule": "weekly",
    "day": 2,
    "time_of_day": "06:30",
    "timezone": "Europe/Berlin",
    "window": "previous_period",
    "delay": 900,
    "catch_up": "all",
    "filters": {"kind": "proof", "amount": {"gt": 0.1, "lt": 123456789012345678.125}},
    "columns": ["id", "kind"],
    "options": {"compression": "gzip"},
    "recipients": ["Team@Bücher.example"],
    "webhook": "https://hooks.example.com/x",
    "split": {"rows": 5},
    "scope": "own",
}


@pytest.mark.parametrize("wanted", [{}, EVERYTHING], ids=["least", "everything"])
async def test_a_repeated_creation_with_its_key_makes_one_schedule(
    api: Harness, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    """The answer can be lost. The key is that of the user, and of what was asked for."""
    key = {"Idempotency-Key": "one"}
    settings = changed(api.settings, user_schedule_limit=1, webhook_secret="whsec_" + "QUFB" * 8)
    async with running(settings) as app:
        user, other = (replace(api, app=app).user(user_id=name) for name in ("ada", "eve"))
        body = order(**wanted)
        first = await user.post("/exports/schedules", json=body, headers=key)
        assert first.status_code == 201, first.text
        with monkeypatch.context() as patch:
            patch.setattr(api_schedules, "check_against_table", None)  # it would ask the source
            again = await user.post("/exports/schedules", json=body, headers=key)
        assert (again.status_code, again.json()) == (201, first.json()), "also at the limit"
        assert again.headers["location"] == first.headers["location"]
        assert (await user.post("/exports/schedules", json=body)).status_code == 409, "without it is another"
        for change in (
            {"catch_up": "last" if wanted else "all"},
            {"name": "x"},
            {"filters": {"kind": "a"}},
        ):
            reused = await user.post("/exports/schedules", json=body | change, headers=key)
            assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused"), change
        of_other = await other.post("/exports/schedules", json=body, headers=key)
        assert of_other.status_code == 201
        assert of_other.json()["id"] != first.json()["id"]
        assert len((await user.get("/exports/schedules")).json()["schedules"]) == 1


async def test_creations_with_one_key_at_the_same_time_make_one_schedule(api: Harness) -> None:
    user = api.user()
    answers = await asyncio.gather(
        *(user.post("/exports/schedules", json=order(), headers={"Idempotency-Key": "one"}) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_creations_of_different_schedules_with_one_key_at_the_same_time(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call finds no schedule with its key before the first one is made."""
    user, key = api.user(), {"Idempotency-Key": "one"}
    names = [f"Number {number}" for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleStore, "get", AsyncMock(return_value=None))
        answers = [
            await user.post("/exports/schedules", json=order(name=name), headers=key) for name in names
        ]
        again = await user.post("/exports/schedules", json=order(name=names[0]), headers=key)
    assert [answer.status_code for answer in answers] == [201, 422, 422]
    assert {answer.json()["code"] for answer in answers[1:]} == {"idempotency_key_reused"}
    assert (again.status_code, again.json()) == (201, answers[0].json())


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"active": False}, {"active": True}),
        ({}, {"active": False}),
        ({"window_from": "2026-01-01T00:00:00Z"}, {"window_from": "2026-01-02T00:00:00Z"}),
        ({"window_from": "2026-01-02T00:00:00Z"}, {"window_from": "2026-01-01T00:00:00Z"}),
        ({}, {"window_from": "2026-01-01T00:00:00Z"}),
        ({"window_from": "2099-01-01T00:00:00Z"}, {}),
        ({"window": "previous_period", "window_from": "2099-01-01T00:00:00Z"}, {"window": "previous_period"}),
    ],
)
async def test_a_key_is_not_that_of_a_schedule_which_starts_in_another_way(
    api: Harness, first: dict[str, Any], other: dict[str, Any]
) -> None:
    user, key = api.user(), {"Idempotency-Key": "one"}
    body = order(window="since_last_run")
    schedule = (await user.post("/exports/schedules", json=body | first, headers=key)).json()
    reused = await user.post("/exports/schedules", json=body | other, headers=key)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    if first.get("window_from", "2099") < "2099":  # a run moves the begin of the next window
        assert (await user.post(path(schedule, ":run"))).status_code == 202
    again = await user.post("/exports/schedules", json=body | first, headers=key)
    assert (again.status_code, again.json()["id"]) == (201, schedule["id"]), again.text


async def test_a_key_finds_a_schedule_that_the_service_has_paused(api: Harness) -> None:
    user, key = api.user(), {"Idempotency-Key": "one"}
    schedule = (await user.post("/exports/schedules", json=order(), headers=key)).json()
    async with api.engine.begin() as connection:
        await connection.execute(
            update(ScheduledExport)
            .where(ScheduledExport.id == UUID(schedule["id"]))
            .values(active=False, next_run=None, paused_reason="failures", paused_code="repeated_failures")
        )
    again = await user.post("/exports/schedules", json=order(), headers=key)
    assert (again.status_code, again.json()["active"]) == (201, False)


async def test_a_creation_without_an_answer_of_the_database_is_in_doubt(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer names the schedule, and its key repeats the call."""
    create = ScheduleStore.create

    async def lose(*arguments: Any, **options: Any) -> None:
        await create(*arguments, **options)
        raise InDoubt("connection lost")

    user, key = api.user(), {"Idempotency-Key": "one"}
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleStore, "create", lose)
        answer = await user.post("/exports/schedules", json=order(), headers=key)
    assert (answer.status_code, answer.json()["code"]) == (503, "in_doubt")
    here = answer.headers["location"]
    assert here in answer.json()["detail"]
    again = await user.post("/exports/schedules", json=order(), headers=key)
    assert (again.status_code, again.headers["location"]) == (201, here)
    assert len((await user.get("/exports/schedules")).json()["schedules"]) == 1
