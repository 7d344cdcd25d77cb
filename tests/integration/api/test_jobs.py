"""Users can see, list and cancel their own jobs only."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from string import punctuation
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest
import structlog

from stream_app.jobs.states import Status
from stream_app.storage.listing import object_key
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import PublishError
from streaming_exporter.events import EventType, Topic
from tests.integration.api.conftest import Harness, client_of, order
from tests.topics import events_on
from tests.waiting import WITHIN, at_most, patient

LATER = datetime.now(UTC) + timedelta(days=1)
CONTENT = b"id,kind\n"


async def place(client: httpx2.AsyncClient, **changes: Any) -> str:
    response = await client.post("/exports/jobs", json=order(**changes))
    assert response.status_code == 202, response.text
    job_id: str = response.json()["export_job_id"]
    return job_id


async def complete(api: Harness, storage: ObjectStore, job_id: str, **changes: Any) -> None:
    """Complete the job as a worker would."""
    # Not the key of a first attempt, because a worker of other tests can run the job too.
    key = object_key(job_id, 99, "ledger-2026-11-24.csv")
    stored = storage.put(
        key, iter([CONTENT]), content_type="text/csv", file_name="ledger-2026-11-24.csv", metadata=dict
    )
    known = {
        "status": "completed",
        "attempt": 1,
        "row_count": 0,
        "file_path": key,
        "file_name": "ledger-2026-11-24.csv",
        "file_size": stored.size,
        "sha256": stored.sha256,
        "content_type": "text/csv",
        "as_of": datetime.now(UTC),
        "completed_at": datetime.now(UTC),
        "expires_at": LATER,
        "manifest": {"columns": [{"name": "id", "type": "bigint"}], "filters": {"kind": "proof"}},
    }
    await api.set(job_id, **{**known, **changes})


async def test_the_status_has_retry_after(api: Harness) -> None:
    async with api.user() as client:
        job_id = await place(client)
        assert (await client.get(f"/exports/jobs/{job_id}")).headers["retry-after"] == "1"
        await api.set(job_id, status="failed", error_code="timeout", error_message="took too long")
        response = await client.get(f"/exports/jobs/{job_id}")
    assert "retry-after" not in response.headers
    assert response.json()["error"] == {"code": "timeout", "message": "took too long"}


async def test_an_unchanged_job_is_answered_with_304(api: Harness) -> None:
    async with api.user() as client:
        url = f"/exports/jobs/{await place(client)}"
        tag = (await client.get(url)).headers["etag"]
        for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            response = await client.get(url, headers={"If-None-Match": condition})
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == tag
            assert response.headers["retry-after"] == "1"
        await api.set(url.rpartition("/")[2], status="processing", row_count=5)
        response = await client.get(url, headers={"If-None-Match": tag})
    assert (response.status_code, response.json()["row_count"]) == (200, 5)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/download"),
        ("HEAD", "/download"),
        ("GET", "/manifest"),
    ],
)
async def test_who_can_see_a_job(api: Harness, storage: ObjectStore, method: str, path: str) -> None:
    async with (
        client_of(api.app, None) as nobody,
        api.user() as other,
        api.user("exports:all") as all_rows,
        api.user() as owner,
        api.user("exports:admin") as admin,
    ):
        job_id = await place(owner)
        await complete(api, storage, job_id)
        url = f"/exports/jobs/{job_id}{path}"
        statuses = [
            (await client.request(method, url)).status_code
            for client in (nobody, other, all_rows, owner, admin)
        ]
        unknown = await owner.request(method, f"/exports/jobs/{uuid4()}{path}")
        hidden = await other.request(method, url)
    fine = 202 if method == "DELETE" else 307 if path == "/download" else 200
    assert statuses == [401, 404, 404, fine, fine]
    if method != "HEAD":
        assert {**unknown.json(), "request_id": None} == {**hidden.json(), "request_id": None}


async def test_pages_hold_every_job_once_newest_first(api: Harness) -> None:
    async with api.user() as client, api.user() as other:
        placed = [await place(client) for _ in range(7)]
        await place(other)
        seen: list[str] = []
        parameters: dict[str, Any] = {"limit": 3}
        for expected in (3, 3, 1):
            page = (await client.get("/exports/jobs", params=parameters)).json()
            assert len(page["jobs"]) == expected
            seen += [job["export_job_id"] for job in page["jobs"]]
            parameters["cursor"] = page["next_cursor"]
            await place(client)  # new jobs do not shift the pages
        assert page["next_cursor"] is None
    assert seen == placed[::-1]


async def test_lists_can_be_filtered(api: Harness) -> None:
    async with api.user() as client:
        ledger, proofs = await place(client), await place(client, export_type="proofs")
        await api.set(ledger, status="failed")

        async def ids(**parameters: str) -> list[str]:
            page = (await client.get("/exports/jobs", params=parameters)).json()
            return [job["export_job_id"] for job in page["jobs"]]

        assert await ids(status="failed") == [ledger]
        assert await ids(export_type="proofs") == [proofs]
        assert await ids(status="completed") == []


async def test_the_filter_of_the_status_is_that_of_the_status_that_is_shown(api: Harness) -> None:
    """The outcome of an expiry is applied later, with an outage much later. Some jobs have no expiry."""
    now = datetime.now(UTC)
    async with api.user() as client:
        over, kept, endless, gone, failed = [await place(client) for _ in range(5)]
        await api.set(over, status="completed", expires_at=now - timedelta(hours=1))
        await api.set(kept, status="completed", expires_at=now + timedelta(days=1))
        await api.set(endless, status="completed", expires_at=None)
        await api.set(gone, status="expired", expires_at=now - timedelta(days=1))
        await api.set(failed, status="failed", expires_at=now - timedelta(days=1))
        found: dict[str, list[str]] = {}
        for status in Status:
            page = (await client.get("/exports/jobs", params={"status": status})).json()
            assert {job["status"] for job in page["jobs"]} <= {status}
            found[status] = [job["export_job_id"] for job in page["jobs"]]
        everything = (await client.get("/exports/jobs")).json()["jobs"]
    assert found["completed"] == [endless, kept]
    assert found["expired"] == [gone, over]
    assert found["failed"] == [failed]
    assert sorted(job for jobs in found.values() for job in jobs) == sorted(
        job["export_job_id"] for job in everything
    )


async def test_jobs_are_found_by_the_words_of_their_names_and_datasets(api: Harness) -> None:
    """Entry 28. A search never finds a name that the user cannot see, and its text is no pattern."""
    services = api.app.state.services
    proofs = services.datasets["proofs"].model_copy(
        update={"label": "Certificates", "labels": {"de": "Nachweise"}}
    )
    async with api.user(user_id="a") as a, api.user("exports:operate") as operator, api.user() as other:
        october = await place(a, name="Ledger Oktober 100 %")
        nachweis = await place(a, export_type="proofs", name="Über_sicht")
        plain = await place(a)
        await a.post("/exports/jobs:estimate", json={"export_type": "proofs", "format": "csv"})
        with pytest.MonkeyPatch.context() as patch:
            changed = replace(services, datasets=api.datasets_with(proofs))
            patch.setattr(api.app.state, "services", changed)

            async def ids(client: httpx2.AsyncClient, q: str, **more: str) -> set[str]:
                answer = await client.get("/exports/jobs", params={"q": q, **more})
                assert answer.status_code == 200, answer.text
                return {job["export_job_id"] for job in answer.json()["jobs"]}

            for q, found in {
                "oktober": {october},
                " LEDGER ": {october, plain},
                "ledger okt": {october},
                "okt proofs": set(),
                "100 %": {october},
                "%": {october},
                "_": {nachweis},
                "über": {nachweis},
                "nachw": {nachweis},
                "certific": {nachweis},
                "\\": set(),
                "ß": set(),
                "".join(sorted(punctuation)): set(),
                ". * ( [ ***= (?i)": set(),
                "": {october, nachweis, plain},
            }.items():
                assert await ids(a, q) == found, q
            assert await ids(a, "ledger", status="completed") == set()
            assert await ids(other, "ledger") == set()
            assert await ids(operator, "ledger") == {october, plain}
            assert await ids(operator, "oktober") == set(), "operators do not see names"


async def test_administrators_list_all_users(api: Harness) -> None:
    async with api.user(user_id="a") as a, api.user(user_id="b") as b, api.user("exports:admin") as admin:
        jobs = [await place(a), await place(b)]
        page = (await admin.get("/exports/jobs")).json()
        assert [job["export_job_id"] for job in page["jobs"]] == jobs[::-1]
        page = (await admin.get("/exports/jobs", params={"user_id": "a"})).json()
        assert [job["export_job_id"] for job in page["jobs"]] == jobs[:1]
        assert (await a.get("/exports/jobs", params={"user_id": "b"})).status_code == 403
        assert (await a.get("/exports/jobs", params={"user_id": "a"})).status_code == 200


@pytest.mark.parametrize(
    "parameters",
    [{"limit": "0"}, {"limit": "101"}, {"status": "running"}, {"cursor": "x"}, {"cursor": "' OR 1=1 --"}],
)
async def test_bad_parameters(api: Harness, parameters: dict[str, str]) -> None:
    async with api.user() as client:
        response = await client.get("/exports/jobs", params=parameters)
    assert (response.status_code, response.json()["field"]) == (422, next(iter(parameters)))


async def test_a_cancellation_is_published(api: Harness) -> None:
    async with api.user() as client:
        job_id = await place(client)
        response = await client.delete(f"/exports/jobs/{job_id}")
    assert (response.status_code, response.json()) == (202, {"export_job_id": job_id, "status": "pending"})
    assert [event.type for event in await api.published(job_id)] == [
        EventType.REQUESTED,
        EventType.CANCEL_REQUESTED,
    ]


async def test_a_download_leads_to_the_file(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client:
        job_id = await place(client)
        await complete(api, storage, job_id)
        links = [
            (await client.request(method, f"/exports/jobs/{job_id}/download")).headers["location"]
            for method in ("GET", "HEAD")
        ]
        record = (await client.get(f"/exports/jobs/{job_id}")).json()
        assert record["download_url"] == f"/exports/jobs/{job_id}/download"
    async with httpx2.AsyncClient(timeout=patient(WITHIN)) as store:
        response = await store.get(links[0])
        assert response.content == CONTENT
        assert 'filename="ledger-2026-11-24.csv"' in response.headers["content-disposition"]
        assert (await store.get(links[0].partition("?")[0])).status_code == 403


async def test_a_file_is_saved_under_the_name_of_its_export(api: Harness, storage: ObjectStore) -> None:
    """P7: in the job, its manifest, its files and the header of the download. The key has no name."""
    saved = "Übersicht-Oktober-2026-11-24.csv"
    async with api.user() as client, httpx2.AsyncClient(timeout=patient(WITHIN)) as store:
        job_id = await place(client, name="Übersicht: Oktober")
        await complete(api, storage, job_id)
        here = f"/exports/jobs/{job_id}"
        names = [(await client.get(path)).json()["file_name"] for path in (here, f"{here}/manifest")]
        [file] = (await client.get(f"{here}/files")).json()["files"]
        assert {*names, file["file_name"]} == {saved}
        for path in (f"{here}/download", f"{here}/files/1"):
            location = (await client.get(path)).headers["location"]
            assert "/ledger-2026-11-24.csv?" in location
            answer = await store.get(location)
            assert f"filename*=UTF-8''{quote(saved)}" in answer.headers["content-disposition"]


async def test_a_download_is_audited(api: Harness, storage: ObjectStore) -> None:
    async with (
        api.user(user_id="owner-1") as owner,
        api.user("exports:admin", user_id="admin-1") as admin,
        api.user() as other,
    ):
        job_id = await place(owner)
        await complete(api, storage, job_id)
        with structlog.testing.capture_logs() as logged:
            for method, client in (("GET", owner), ("HEAD", owner), ("GET", admin), ("GET", other)):
                await client.request(method, f"/exports/jobs/{job_id}/download")
    lines = [
        (line["user_id"], line["owner"], line["method"])
        for line in logged
        if line["event"] == "download.link_issued"
    ]
    assert lines == [
        ("owner-1", "owner-1", "GET"),
        ("owner-1", "owner-1", "HEAD"),
        ("admin-1", "owner-1", "GET"),
    ]
    await api.app.state.services.download_audit.settle()
    events = [event for event in await events_on(api.settings, Topic.AUDIT) if str(event.job_id) == job_id]
    assert [event.type for event in events] == [EventType.DOWNLOADED] * 2
    assert sorted(event.data["by"] for event in events) == ["admin-1", "owner-1"]
    assert {event.data["user_id"] for event in events} == {"owner-1"}


async def test_no_download_waits_for_kafka(
    api: Harness, storage: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api.user() as client:
        job_id = await place(client)
        await complete(api, storage, job_id)
        await api.app.state.services.relay.settle()  # the request itself is published

        answered = asyncio.Event()

        async def publish(_: object) -> None:
            await answered.wait()
            raise PublishError("away")

        monkeypatch.setattr(api.app.state.services.publisher, "publish", publish)
        async with at_most(30):
            assert (await client.get(f"/exports/jobs/{job_id}/download")).status_code == 307
        answered.set()
        with structlog.testing.capture_logs() as logged:
            await api.app.state.services.download_audit.settle()
    assert [line["event"] for line in logged] == ["download.publish_failed"]


async def test_a_manifest_describes_the_file(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client:
        job_id = await place(client)
        await complete(api, storage, job_id)
        manifest = (await client.get(f"/exports/jobs/{job_id}/manifest")).json()
        record = (await client.get(f"/exports/jobs/{job_id}")).json()
    assert manifest["bytes"] == record["file_size"] == len(CONTENT)
    assert manifest["sha256"] == record["sha256"]
    assert manifest["columns"] == [{"name": "id", "type": "bigint"}]
    assert manifest["filters"] == {"kind": "proof"}


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ({"status": "pending"}, 409, "not_ready"),
        ({"status": "processing"}, 409, "not_ready"),
        ({"status": "failed", "error_message": "took too long"}, 409, "export_failed"),
        ({"status": "cancelled"}, 409, "export_cancelled"),
        ({"status": "expired"}, 410, "expired"),
        ({"status": "completed", "expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, 410, "expired"),
    ],
)
@pytest.mark.parametrize("path", ["download", "manifest"])
async def test_downloads_before_and_after_the_file_exists(
    api: Harness, storage: ObjectStore, path: str, state: dict[str, Any], status: int, code: str
) -> None:
    async with api.user() as client:
        job_id = await place(client)
        await complete(api, storage, job_id, **state)
        response = await client.get(f"/exports/jobs/{job_id}/{path}")
        record = (await client.get(f"/exports/jobs/{job_id}")).json()
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (code == "not_ready")
    assert record["download_url"] is None
