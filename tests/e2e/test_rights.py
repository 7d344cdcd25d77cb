"""Rights from the token or the event to the file, on the whole system."""

import csv
import io
import json
from typing import Any

import httpx2
import pytest

from producers.tokens import sign_token
from streaming_exporter.events import ExportRequest, request_event
from tests.e2e.conftest import System
from tests.e2e.test_requests import publish
from tests.stacks import settings_of
from tests.waiting import patient

GROUP = ["customer-1", "customer-2", "customer-99"]


def client(system: System, *roles: str, **claims: Any) -> httpx2.Client:
    token = sign_token(settings_of(system.stack), "ada", roles, claims=claims)
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.Client(base_url=system.api.address, headers=headers, timeout=patient(30))


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


WANTED = {"export_type": "guarded", "format": "csv", "scope": "group"}


@pytest.mark.parametrize("way", ["token", "event", "schedule"])
async def test_a_file_has_the_rows_and_columns_of_roles_and_claims(system: System, way: str) -> None:
    claims = {"customers": GROUP, "roles": ["lead", "shop"]}
    if way == "event":
        event = request_event(ExportRequest(user_id="ada", claims=claims, **WANTED), source="/test")
        await publish(system, [(event.key, event.encode())])
        job_id = str(event.job_id)
    else:
        with client(system, "lead", "shop", "unrelated", customers=GROUP) as ada:
            if way == "token":
                job_id = ada.post("/exports/jobs", json=WANTED).json()["export_job_id"]
            else:
                made = ada.post("/exports/schedules", json={**WANTED, "schedule": "daily"}).json()
                ran = system.client.post(f"/exports/schedules/{made['id']}:run")
                job_id = ran.json()["export_job_id"]
                assert ada.delete(f"/exports/schedules/{made['id']}").status_code == 204
    job = system.ended(job_id)
    assert job["status"] == "completed", job
    assert job["user_id"] == "ada"
    rows = table(system.file(job_id))
    assert len(rows) == job["row_count"] == 144
    assert {tuple(row) for row in rows} == {("id", "note")}, "without total"
    assert {row["note"] for row in rows} == {""}, "masked"
    assert {int(row["id"]) % 7 for row in rows} == {1, 2}
    manifest = json.dumps(system.client.get(f"/exports/jobs/{job_id}/manifest").json())
    for secret in ("total", "customer-99", "lead", "unrelated"):
        assert secret not in manifest
        assert secret not in json.dumps(job)


async def test_an_event_without_claims_is_of_a_user_without_roles(system: System) -> None:
    known, unknown = (
        request_event(ExportRequest(user_id="ada", export_type=name, format="csv"), source="/test")
        for name in ("guarded", "no_dataset")
    )
    await publish(system, [(event.key, event.encode()) for event in (known, unknown)])
    errors = [system.ended(event.job_id)["error"] for event in (known, unknown)]
    assert errors[0]["code"] == errors[1]["code"] == "unknown_dataset"
    assert errors[0]["message"].replace("'guarded'", "'no_dataset'") == errors[1]["message"]
