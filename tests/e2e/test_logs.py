"""The logs of a real worker and a real API: one line summarizes a job, and each line names its job."""

import json
from pathlib import Path
from typing import Any

from dev.postgres import SOURCE
from tests.e2e.conftest import System
from tests.e2e.tables import at_the_gate, psql
from tests.e2e.test_requests import publish, request
from tests.gate import Gate
from tests.waiting import patient, until_async

OUTCOMES = {"job.completed", "job.failed", "job.cancelled"}


def lines(log: Path) -> list[dict[str, Any]]:
    """Return all complete lines of a log. A line that is not JSON fails the test."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


async def about(system: System, job_id: str, wanted: set[str]) -> list[dict[str, Any]]:
    """Wait for one of the ``wanted`` events; return the worker's lines about the job."""

    def look() -> list[dict[str, Any]]:
        found = [line for line in lines(system.worker.log) if line.get("job_id") == job_id]
        return found if any(line["event"] in wanted for line in found) else []

    return await until_async(look)


async def test_one_line_summarizes_a_job(system: System) -> None:
    good = request(user_id="customer-2", options={"compression": "gzip"})
    impossible = request(export_type="nothing")
    refused = request(columns=["id", "colour"])
    gated = request(export_type="gated", scope="all")
    async with Gate(system.stack.postgres.admin_url(SOURCE)):
        await publish(system, [(event.key, event.encode()) for event in (good, impossible, refused, gated)])
        await system.processing(gated.id)
        assert system.client.delete(f"/exports/jobs/{gated.id}").status_code == 202
        system.ended(gated.id)
    told = {}
    for event in (good, impossible, refused, gated):
        system.ended(event.id)
        found = await about(system, event.id, OUTCOMES)
        (told[event.id],) = [line for line in found if line["event"] in OUTCOMES]
        assert {line["user_id"] for line in found} == {event.identity.user_id}

    done = told[good.id]
    assert done["event"] == "job.completed"
    assert done["level"] == "info"
    assert done["worker"].endswith(f"-{system.worker.pid}")
    assert done["rows"] == system.job(good.id)["row_count"] > 0  # type: ignore[index]
    assert done["bytes"] == len(system.file(good.id))
    assert (done["dataset"], done["format"], done["compression"]) == ("orders", "csv", "gzip")
    assert (done["attempt"], done["failures"], done["source"]) == (1, 0, "/test")
    assert 0 <= done["queue_seconds"] < patient(30)
    assert 0 < done["duration_seconds"] < patient(30)
    assert "error" not in done

    assert told[impossible.id]["event"] == told[refused.id]["event"] == "job.failed"
    assert told[impossible.id]["attempt"] == 0
    assert told[impossible.id]["error_code"] == "unknown_dataset"
    assert told[refused.id]["attempt"] == 1
    assert told[refused.id]["error_code"] == "unknown_column"
    assert told[refused.id]["error"].startswith("columns.1: the dataset has no column 'colour'")
    assert told[gated.id]["event"] == "job.cancelled"


async def test_the_lines_of_an_attempt_name_its_job(system: System) -> None:
    async with Gate(system.stack.postgres.admin_url(SOURCE)):
        job_id = system.ask(export_type="gated", format="csv", scope="all")
        await system.processing(job_id)
        theirs = at_the_gate(job_id)
        await until_async(lambda: "1 row" in psql(system.stack, f"SELECT pg_terminate_backend(pid) {theirs}"))
        found = await about(system, job_id, {"job.attempt_failed", "job.postponed"})
        system.client.delete(f"/exports/jobs/{job_id}")
    assert {(line["user_id"], line["attempt"]) for line in found} == {("tester", 1)}
    levels = {line["event"]: line["level"] for line in found}
    assert levels.pop("job.started") == "info", "a job that hangs has a line, too"
    assert set(levels.values()) == {"warning"}
    assert system.ended(job_id)["status"] in {"cancelled", "completed"}


def test_the_lines_of_a_call_have_its_request_id(system: System) -> None:
    body = {"export_type": "orders", "format": "csv"}
    answer = system.client.post("/exports/jobs", json=body, headers={"X-Request-ID": "ticket-4711"})
    assert answer.headers["X-Request-ID"] == "ticket-4711"
    job_id = answer.json()["export_job_id"]
    found = [line for line in lines(system.api.log) if line.get("request_id") == "ticket-4711"]
    line, audited = sorted(found, key=lambda line: str(line["event"]), reverse=True)
    assert (line["event"], line["job_id"], line["user_id"]) == ("job.requested", job_id, "tester")
    assert (audited["event"], audited["actor"], audited["object"]) == (
        "call.audited",
        "tester",
        f"job:{job_id}",
    )
    assert system.ended(job_id)["status"] == "completed"
