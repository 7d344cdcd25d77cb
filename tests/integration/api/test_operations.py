"""Operators see what waits and why, who uses the service, and stop what must not run."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
import structlog
from sqlalchemy import text
from typer.testing import CliRunner

from api.jobs import routes
from api.operations import cancellations
from api.operations.readiness import Readiness
from producers.__main__ import cli
from producers.tokens import sign_token
from stream_app.db import engine as engine_module
from stream_app.exports.sources.monitor import UNAVAILABLE, SourceMonitor
from stream_app.jobs.claim_pauses import PauseStore
from stream_app.jobs.worker_registry import WorkerRegistry
from streaming_exporter.events import EventType
from tests.integration.api.conftest import Harness
from tests.integration.api.test_client_library import served
from tests.integration.api.test_jobs import place

OPERATE = "exports:operate"


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def clean(api: Harness) -> None:
    """Leave no pauses and workers of other tests."""
    async with api.engine.begin() as connection:
        await connection.execute(text("DELETE FROM claim_pauses"))
        await connection.execute(text("DELETE FROM workers"))
    api.app.state.services.queue_metrics._paused_until = 0.0
    api.app.state.services.queue_metrics._valid_until = 0.0


async def report(api: Harness, name: str = "w", *, slots: int = 2, running: int = 0) -> None:
    await WorkerRegistry(api.engine).report(
        name, slots=slots, running=running, version="1", started_at=datetime.now(UTC)
    )


async def why(client: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    answer = await client.get(f"/exports/jobs/{job_id}/why")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def admitted(api: Harness, client: httpx2.AsyncClient, **values: Any) -> str:
    job_id = await place(client)
    await api.set(job_id, admitted_at=datetime.now(UTC), **values)
    return job_id


async def test_each_reason_to_wait_is_named(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """P19: why a job waits: Kafka, a part, a pause, its source, its time, no worker, slots."""
    services, now = api.app.state.services, datetime.now(UTC)
    async with api.user(user_id="user-7") as owner, api.user(OPERATE) as operator:
        job_id = await place(owner)

        async def reason() -> tuple[str, str]:
            found = await why(operator, job_id)
            return found["reason"], found["text"]

        assert (await reason())[0] == "not_admitted"
        await api.set(job_id, admitted_at=now)
        assert (await reason())[0] == "no_worker"
        await report(api, slots=0)
        assert (await reason())[0] == "workers_start"
        with monkeypatch.context() as patched:
            states = {"database": "ok", "kafka": "ok", "object_store": "unavailable"}
            patched.setattr(Readiness, "parts", AsyncMock(return_value=states))
            text = "the object store cannot be reached from this API; workers that need it wait"
            assert await reason() == ("part_away", text)
        await report(api)
        assert (await reason())[0] == "next"
        await report(api, running=2)
        assert await reason() == ("slots", "all 2 slots of 1 workers are in use; about 0 jobs are before it")
        running = [
            await admitted(api, owner, status="processing", lease_until=now + timedelta(minutes=1))
            for _ in range(services.settings.user_slots)
        ]
        assert (await reason())[0] == "user_slots"
        await api.set(job_id, not_before=now + timedelta(minutes=5), attempt=1, error_code="session_ended")
        assert (await reason())[0] == "not_before"
        assert "The database ended the connection" in (await why(operator, job_id))["error"]["message"]
        with monkeypatch.context() as patched:
            patched.setattr(SourceMonitor, "states", lambda _: {"default": UNAVAILABLE, "main": UNAVAILABLE})
            source = services.datasets["ledger"].source
            patched.setattr(SourceMonitor, "states", lambda _: {source: UNAVAILABLE})
            assert (await reason())[0] == "source_away"
        await PauseStore(api.engine).pause("dataset:ledger", reason=None, by="me")
        assert await reason() == ("paused", "operators have paused the claims of dataset:ledger")
        await api.set(job_id, cancel_requested_at=now)
        assert (await reason())[0] == "cancelling"
        assert (await why(operator, running[0]))["reason"] == "running"
        await api.set(running[0], attempt=4, failures=1)
        assert "it has begun again 2 times without a failure" in (await why(operator, running[0]))["text"]
        await api.set(running[0], lease_until=now - timedelta(minutes=1), worker="w-9")
        assert "worker w-9 has not renewed its lease" in (await why(operator, running[0]))["text"]


async def test_the_place_in_the_queue_counts_priority_and_age(api: Harness) -> None:
    async with api.user() as client, api.user(OPERATE) as operator:
        ids = [await admitted(api, client) for _ in range(3)]
        low, waits = await admitted(api, client, priority=2), await admitted(api, client)
        await api.set(waits, not_before=datetime.now(UTC) + timedelta(hours=1))
        places = [(await why(operator, job_id))["place"] for job_id in (*ids, low)]
    assert places == [1, 2, 3, 4], "a job that is not due delays no other job"


async def test_seconds_of_the_stages_come_from_the_heartbeat_and_then_from_the_end(api: Harness) -> None:
    async with api.user() as client, api.user(OPERATE) as operator, api.user("exports:admin") as admin:
        stages = {"attempt": 2, "phase": "source", "source": 1.5, "render": 0.25}
        lease = datetime.now(UTC) + timedelta(minutes=1)
        job_id = await admitted(
            api, client, status="processing", attempt=2, lease_until=lease, worker="w-1", stages=stages
        )
        found = await why(operator, job_id)
        assert (found["phase"], found["seconds"]) == ("source", {"source": 1.5, "render": 0.25})
        assert found["text"] == "worker w-1 waits for rows of the source database"
        await api.set(job_id, attempt=3)
        assert (await why(operator, job_id))["seconds"] == {}, "those of the attempt before"
        times = {"source": 2.0, "render": 1.0, "upload": 0.5}
        await api.set(
            job_id, status="failed", manifest={"seconds": times}, error_code="timeout", error_message="secret"
        )
        found = await why(operator, job_id)
        assert (found["reason"], found["seconds"], found["phase"]) == ("failed", times, None)
        assert found["error"]["code"] == "timeout"
        assert found["error"]["message"].startswith("The export took too long.")
        assert "secret" not in str(found)
        assert (await why(admin, job_id))["error"]["message"] == "secret"


async def test_usage_is_counted_by_user_and_dataset(api: Harness) -> None:
    """P19: who uses the service most: jobs, rows and bytes, of the requested time only."""
    async with api.user(user_id="user-7") as one, api.user(user_id="user-8") as other:
        done = {"status": "completed", "row_count": 10, "file_size": 100}
        for client, count in ((one, 3), (other, 1)):
            for _ in range(count):
                await api.set(await place(client), **done)
        await api.set(await place(other), status="failed", row_count=7)
        await api.set(
            await place(other, format="json", columns=["id"]), created_at=datetime(2020, 1, 1, tzinfo=UTC)
        )
    async with api.user(OPERATE) as operator:
        report = (await operator.get("/exports/usage?since=today")).json()
        assert [
            (item["user_id"], item["jobs"], item["failed"], item["rows"], item["bytes"])
            for item in report["items"]
        ] == [
            ("user-7", 3, 0, 30, 300),
            ("user-8", 2, 1, 10, 100),
        ]
        assert report["total"] | {"user_id": None} == {
            "user_id": None, "export_type": None,
            "jobs": 5, "completed": 4, "failed": 1, "rows": 40, "bytes": 400,
        }  # fmt: skip
        by = (await operator.get("/exports/usage?since=2019-01-01&by=dataset")).json()
        assert [(item["export_type"], item["user_id"], item["jobs"]) for item in by["items"]] == [
            ("ledger", None, 6)
        ]
        wrong = await operator.get("/exports/usage?since=last-week")
        assert (wrong.status_code, wrong.json()["field"]) == (422, "since")


async def test_a_pause_is_shown_everywhere_until_it_is_resumed(api: Harness) -> None:
    """P19: readiness, metrics, doctor and the list of pauses name it; unknown names are refused."""
    async with api.user(OPERATE, user_id="boss") as client:
        wrong = await client.post("/exports/pauses", json={"scope": "dataset:nothing"})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "scope")
        assert "everything" in wrong.json()["detail"]
        assert "dataset:ledger" in wrong.json()["detail"]
        with structlog.testing.capture_logs() as logs:
            done = await client.post(
                "/exports/pauses", json={"scope": "dataset:ledger", "reason": "month end"}
            )
        assert done.status_code == 200, done.text
        assert (done.json()["paused_by"], done.json()["reason"]) == ("boss", "month end")
        [audited] = [line for line in logs if line["event"] == "call.audited"]
        assert (audited["action"], audited["actor"], audited["object"]) == (
            "pauseClaims",
            "boss",
            "pause:dataset:ledger",
        )
        ready = (await client.get("/readyz")).json()
        assert (ready["status"], ready["paused"]) == ("ok", ["dataset:ledger"])
        assert 'exporter_claims_paused{scope="dataset:ledger"} 1.0' in (await client.get("/metrics")).text
        assert [item["scope"] for item in (await client.get("/exports/pauses")).json()["pauses"]] == [
            "dataset:ledger"
        ]
        overview = (await client.get("/exports/operations")).json()
        assert [item["scope"] for item in overview["pauses"]] == ["dataset:ledger"]
        doctor = (await client.get("/exports/operations/doctor")).json()
        [finding] = [item for item in doctor["findings"] if item["check"] == "pauses"]
        assert finding["state"] == "warning"
        assert "dataset:ledger" in finding["what"]
        assert (await client.delete("/exports/pauses?scope=dataset:ledger")).status_code == 204
        assert (await client.delete("/exports/pauses?scope=dataset:ledger")).status_code == 404
        assert (await client.get("/exports/pauses")).json() == {"pauses": []}


async def test_all_unfinished_jobs_of_a_user_are_cancelled_and_no_file_is_removed(api: Harness) -> None:
    lease = datetime.now(UTC) + timedelta(minutes=1)
    async with api.user(user_id="user-7") as owner, api.user() as other, api.user(OPERATE) as operator:
        pending, running, completed = [await admitted(api, owner) for _ in range(3)]
        foreign = await admitted(api, other)
        await api.set(running, status="processing", lease_until=lease, attempt=1)
        expires = datetime.now(UTC) + timedelta(days=1)
        await api.set(completed, status="completed", expires_at=expires)
        answer = await operator.post("/exports/jobs:cancel", json={"user_id": "user-7"})
        assert answer.status_code == 202, answer.text
        assert set(answer.json()["export_job_ids"]) == {pending, running}
        again = await operator.post("/exports/jobs:cancel", json={"user_id": "user-7"})
        assert again.json()["export_job_ids"] == [running], "until its worker has stopped it"
    jobs = {job_id: await api.queries.get(UUID(job_id)) for job_id in (pending, running, completed, foreign)}
    asked = {job_id: job is not None and job.cancel_requested_at is not None for job_id, job in jobs.items()}
    assert asked == {pending: True, running: True, completed: False, foreign: False}
    kept = jobs[completed]
    assert kept is not None
    assert kept.expires_at == expires
    assert [event.type for event in await api.published(pending)][-1] == "export.cancel_requested"
    assert all(event.type == "export.requested" for event in await api.published(running))


async def test_a_job_that_ends_before_its_cancellation_keeps_its_file(api: Harness) -> None:
    """The list of a user's jobs is older than the lock on each: what has ended meanwhile is left alone."""
    services = api.app.state.services
    async with api.user(user_id="user-7") as owner, api.user(OPERATE) as operator:
        job_id = await admitted(api, owner)
        async with api.engine.begin() as connection:
            await connection.execute(
                text("UPDATE export_jobs SET status = 'completed', expires_at = now() + interval '1 day'")
            )
            call = asyncio.create_task(operator.post("/exports/jobs:cancel", json={"user_id": "user-7"}))
            done, _ = await asyncio.wait({call}, timeout=0.3)
            assert not done, "it waits for the other transaction"
        assert (await call).json() == {"export_job_ids": []}
    job = await services.job_queries.get(UUID(job_id))
    assert job.expires_at > datetime.now(UTC) + timedelta(hours=1)


async def test_a_job_that_is_locked_does_not_keep_others_from_being_cancelled(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is told: "nothing was changed" would be wrong. A repeated call cancels the rest."""
    monkeypatch.setattr(engine_module, "BEGIN", engine_module.BEGIN.replace("3s", "100ms"))
    async with api.user(user_id="user-7") as owner, api.user(OPERATE) as operator:
        jobs = [await admitted(api, owner) for _ in range(3)]
        body = {"user_id": "user-7"}
        async with api.engine.begin() as connection:
            await connection.execute(
                text("SELECT FROM export_jobs WHERE id = :id FOR UPDATE"), {"id": UUID(jobs[1])}
            )
            answer = await operator.post("/exports/jobs:cancel", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "cancellation_incomplete"), answer.text
        assert answer.json()["detail"].startswith("2 jobs are cancelled. It is not known of 1 more")
        monkeypatch.setattr(cancellations, "SECONDS", -1.0)
        late = await operator.post("/exports/jobs:cancel", json=body)
        assert (late.status_code, late.json()["code"]) == (503, "cancellation_incomplete"), late.text
        monkeypatch.undo()
        assert (await operator.post("/exports/jobs:cancel", json=body)).json() == {
            "export_job_ids": [jobs[1]]
        }


@pytest.mark.parametrize(
    "ended",
    [
        "status = 'completed', expires_at = now() + interval '1 day'",
        """outcome = '{"status": "completed"}', lease_until = now() + interval '1 minute'""",
    ],
    ids=["completed", "outcome stored"],
)
async def test_a_job_that_ends_before_an_operator_cancels_it_keeps_its_file(api: Harness, ended: str) -> None:
    """The status that is read first is older than the lock: no role but that for data removes a file."""
    lease = datetime.now(UTC) + timedelta(minutes=1)
    async with api.user(user_id="user-7") as owner, api.user(OPERATE) as operator:
        job_id = await admitted(api, owner)
        await api.set(job_id, status="processing", lease_until=lease, attempt=1)
        async with api.engine.begin() as connection:
            await connection.execute(text(f"UPDATE export_jobs SET {ended}"))
            call = asyncio.create_task(operator.delete(f"/exports/jobs/{job_id}"))
            done, _ = await asyncio.wait({call}, timeout=0.3)
            assert not done, "it waits for the other transaction"
        answer = await call
        assert (answer.status_code, answer.json()["code"]) == (403, "role_missing"), answer.text
    job = await api.queries.get(UUID(job_id))
    assert job is not None
    assert job.cancel_requested_at is None
    assert all(event.type == "export.requested" for event in await api.published(job_id))


async def test_an_operator_cancels_a_running_job_and_repeats_the_call_for_a_waiting_one(api: Harness) -> None:
    lease = datetime.now(UTC) + timedelta(minutes=1)
    async with api.user() as owner, api.user(OPERATE) as operator:
        running, waiting = [await admitted(api, owner) for _ in range(2)]
        await api.set(running, status="processing", lease_until=lease, attempt=1)
        for job_id in (running, running, waiting, waiting):
            answer = await operator.delete(f"/exports/jobs/{job_id}")
            assert answer.status_code == 202, answer.text
    job = await api.queries.get(UUID(running))
    assert job is not None
    assert job.cancel_requested_at is not None
    assert all(event.type == "export.requested" for event in await api.published(running))
    cancelled = [event.type for event in await api.published(waiting)].count(EventType.CANCEL_REQUESTED)
    assert cancelled == 1
    await api.set(waiting, status="cancelled", outcome=None)  # a worker has applied it
    async with api.user(OPERATE) as operator:
        answer = await operator.delete(f"/exports/jobs/{waiting}")
    assert answer.status_code == 202, "the answer of an earlier call was lost"


async def test_a_slow_list_ends_and_names_what_makes_it_faster(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the list of one user: it holds a connection of the pool that all lists share."""
    monkeypatch.setattr(routes, "SEARCH_SECONDS", 0.3)
    async with api.user(OPERATE) as operator, api.user() as owner:
        job_id = await place(owner)
        async with api.engine.begin() as connection:
            await connection.execute(text("LOCK TABLE export_jobs"))
            of_all = await operator.get("/exports/jobs?code=rare")
            of_user = await owner.get("/exports/jobs")
        for answer, names_user in ((of_all, True), (of_user, False)):
            assert (answer.status_code, answer.json()["code"]) == (503, "search_too_slow")
            assert "since and until" in answer.json()["detail"]
            assert ("user_id" in answer.json()["detail"]) == names_user
        monkeypatch.undo()
        listed = (await owner.get("/exports/jobs")).json()["jobs"]
        assert [job["export_job_id"] for job in listed] == [job_id]
        assert (await operator.get("/exports/jobs?code=rare")).json()["jobs"] == []


async def test_the_overview_shows_workers_queue_schedules_and_deliveries(api: Harness) -> None:
    await report(api, "w-1", slots=4, running=1)
    await report(api, "w-2", slots=4)
    async with api.engine.begin() as connection:
        await connection.execute(
            text("UPDATE workers SET seen_at = now() - interval '1 min' WHERE name = 'w-2'")
        )
        await connection.execute(
            text(
                "INSERT INTO deliveries (job_id, channel, address, event, topic, give_up_at) "
                "VALUES (:id, 'mail', 'secret@example.com', 'completed', 't', now())"
            ),
            {"id": uuid4()},
        )
    async with api.user(user_id="user-7") as owner, api.user(OPERATE) as operator:
        oldest = await admitted(api, owner)
        now = datetime.now(UTC)
        lease = {"lease_until": now + timedelta(minutes=1), "started_at": now}
        running = await admitted(api, owner, status="processing", worker="w-1", **lease)
        body = {"export_type": "ledger", "format": "csv", "schedule": "daily", "time_of_day": "06:00"}
        first, _ = [(await owner.post("/exports/schedules", json=body)).json()["id"] for _ in range(2)]
        async with api.engine.begin() as connection:
            await connection.execute(
                text(
                    "UPDATE scheduled_exports SET failures = 2, next_run = now() - interval '1 h' "
                    "WHERE id = :id"
                ),
                {"id": UUID(first)},
            )
            await connection.execute(
                text(
                    "INSERT INTO deliveries (job_id, channel, address, event, topic, status, give_up_at, "
                    "finished_at) VALUES (:id, 'mail', 'secret@example.com', 'completed', 't', 'failed', "
                    "now(), now())"
                ),
                {"id": UUID(running)},
            )
        error = {"error_code": "missing_column", "error_message": "secret"}
        failed = await admitted(api, owner, status="failed", schedule_id=UUID(first), **error)
        answer = await operator.get("/exports/operations")
        metrics = (await operator.get("/metrics")).text
    found = answer.json()
    assert (found["slots"], found["slots_running"], found["pending"], found["processing"]) == (4, 1, 1, 1)
    assert [(worker["name"], worker["is_silent"]) for worker in found["workers"]] == [
        ("w-1", False),
        ("w-2", True),
    ]
    assert found["schedules"] == {"active": 2, "paused": 0, "late": 1, "failing": 1, "paused_by_service": 0}
    assert [(item["id"], item["failures"]) for item in found["failing_schedules"]] == [(first, 2)]
    [failing] = found["failing_schedules"]
    assert (failing["last_job_id"], failing["error_code"]) == (failed, "missing_column")
    assert failing["error"].startswith("A column of the dataset no longer exists. The logs have the details")
    assert found["oldest_job_id"] == oldest
    assert [(item["export_job_id"], item["worker"]) for item in found["running"]] == [(running, "w-1")]
    lost = [(item["export_job_id"], item["status"]) for item in found["lost_deliveries"]]
    assert lost == [(running, "failed")]
    assert "secret" not in answer.text
    assert found["deliveries"]["waiting"] == 1
    assert "secret@" not in answer.text
    for line in (
        'exporter_schedules{state="late"} 1.0',
        'exporter_schedules{state="failing"} 1.0',
        "exporter_deliveries_waiting 1.0",
    ):
        assert line in metrics


async def test_calls_are_measured_by_the_template_of_their_route(api: Harness) -> None:
    """P19: requests, errors and latency, without ids in the labels."""
    async with api.user(OPERATE) as client:
        job_id = uuid4()
        assert (await client.get(f"/exports/jobs/{job_id}")).status_code == 404
        assert (await client.get(f"/nothing/{job_id}")).status_code == 404
        found = (await client.get("/metrics")).text
    assert 'exporter_http_requests_total{method="GET",route="/exports/jobs/{job_id}",status="404"}' in found
    assert 'exporter_http_requests_total{method="GET",route="other",status="404"}' in found
    assert (
        'exporter_http_request_duration_seconds_count{method="GET",route="/exports/jobs/{job_id}"}' in found
    )
    assert str(job_id) not in found


async def test_the_commands_of_operators(api: Harness) -> None:
    """P19: jobs, usage, why, rerun, pause, resume, pauses and cancel-all, as lines and as JSON."""
    done = {"status": "completed", "row_count": 1200, "file_size": 100}
    async with api.user(user_id="user-7") as owner:
        first, second = [await place(owner) for _ in range(2)]
        await api.set(first, **done)
        await api.set(second, status="failed", error_code="timeout", error_message="secret")
        waits = await admitted(api, owner)
    token = sign_token(api.settings, "boss", [OPERATE])

    async with served(api) as url:

        async def run(*arguments: str, code: int = 0) -> str:
            given = [*arguments, "--api-url", url, "--token", token]
            result = await asyncio.to_thread(CliRunner().invoke, cli, given)
            assert result.exit_code == code, result.output
            return result.stdout

        async def documents(*arguments: str) -> list[dict[str, Any]]:
            printed = await run(*arguments, "--json")
            return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]

        failed = await run("jobs", "--status", "failed", "--since", "today", "--code", "timeout")
        assert f"{second}  " in failed
        assert re.search(r"^job +requested +status +user +dataset", failed, re.MULTILINE)
        assert re.search(r"Z  failed  user-7  ledger   csv +-  timeout$", failed, re.MULTILINE)
        assert first not in failed
        assert "secret" not in failed
        listed = await documents("jobs", "--since", "7d", "--user-id", "user-7", "--limit", "2")
        assert [job["export_job_id"] for job in listed] == [waits, second]
        table = await run("usage", "--since", "7d")
        assert re.search(r"^user-7 +ledger +3 +1 +1,200 +100$", table, re.MULTILINE)
        assert re.search(r"^total +3 +1 +1,200 +100$", table, re.MULTILINE)
        [usage] = await documents("usage", "--by", "dataset")
        assert usage["items"][0]["export_type"] == "ledger"
        explained = await run("why", waits)
        assert explained.count("pending: no worker has reported lately; start one") == 1
        assert "  place in the queue: 1\n" in explained
        [found] = await documents("why", waits)
        assert found["reason"] == "no_worker"
        assert "Paused: dataset:ledger" in await run("pause", "--dataset", "ledger", "--reason", "month end")
        assert re.search("^dataset:ledger  since .* by boss  month end$", await run("pauses"), re.MULTILINE)
        await run("resume", "--dataset", "ledger")
        assert [item for item in await documents("pauses") if "scope" in item] == []
        await run("pause", "--dataset", "ledger", "--source", "x", code=2)
        assert "Paused: user:user-7" in await run("pause", "--user-id", "user-7")
        assert "operators have paused the claims of user:user-7" in await run("why", waits)
        async with api.user(OPERATE) as operator:
            metrics = (await operator.get("/metrics")).text
            ready = (await operator.get("/readyz")).json()
        assert 'exporter_claims_paused{scope="user"} 1.0' in metrics
        assert ready["paused"] == ["user"], "without the user, because anybody can read it"
        await run("resume", "--user-id", "user-7")
        await run("usage", "--by", "user-7", code=2)
        assert "user-7" not in await run("jobs", "--user-id", "nobody")
        shown = await run("overview")
        assert "Workers: 0, 0 of 0 slots in use" in shown
        assert re.search(f"jobs wait, the oldest for .*: {waits}", shown)
        assert "Restart of a worker: safe" in shown
        [overview] = await documents("overview")
        assert overview["oldest_job_id"] == waits
        [again] = await documents("rerun", first)
        record = await api.queries.get(UUID(again["export_job_id"]))
        assert record is not None
        assert str(record.rerun_of) == first
        cancelled = await run("cancel-all", "--user-id", "user-7")
        assert {waits, again["export_job_id"]} <= set(cancelled.split())
        await run("why", str(uuid4()), code=1)
