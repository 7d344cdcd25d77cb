"""The files of a job: the list, one of them, and what a job with several answers to a plain download."""

import json
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import delete, insert
from structlog.testing import capture_logs

from stream_app.jobs.models import ExportFile
from stream_app.storage.object_store import ObjectStore
from tests.integration.api.conftest import Harness
from tests.integration.api.test_jobs import complete, place
from tests.waiting import WITHIN, patient


async def split(
    api: Harness, storage: ObjectStore, client: httpx2.AsyncClient, count: int, **changes: Any
) -> str:
    """A completed job with several files, as a worker leaves it."""
    job_id = await place(client, split={"rows": 1})
    folder = storage.folder(job_id, 99)
    files = []
    for number in range(1, count + 1):
        name = f"ledger-2026-11-24-{number:05}.csv"
        stored = storage.put(
            f"{folder}/{name}",
            iter([f"id\n{number}\n".encode()]),
            content_type="text/csv",
            file_name=name,
            metadata=dict,
        )
        files.append(
            {
                "number": number,
                "file_name": name,
                "key": stored.key,
                "content_type": "text/csv",
                "file_size": stored.size,
                "sha256": stored.sha256,
                "row_count": 1,
            }
        )
    listed = [file | {"rows": file["row_count"], "bytes": file["file_size"]} for file in files]
    manifest = storage.put(
        f"{folder}/manifest.json",
        iter([json.dumps({"files": listed}).encode()]),
        content_type="application/json",
        file_name="manifest.json",
        metadata=dict,
    )
    rows = [
        file | {"job_id": UUID(job_id), "attempt": 99, "bucket": storage.bucket, "result": manifest.key}
        for file in files
    ]
    async with api.engine.begin() as connection:
        await connection.execute(insert(ExportFile), rows)
    known = {"file_path": manifest.key, "file_name": "manifest.json", "content_type": "application/json"}
    await complete(api, storage, job_id, **known, attempt=99, file_count=count, row_count=count, **changes)
    return job_id


async def test_the_list_has_all_files_in_pages(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client:
        job_id = await split(api, storage, client, 5)
        path = f"/exports/jobs/{job_id}/files"
        numbers: list[int] = []
        cursor: str | None = None
        while cursor is not None or not numbers:
            page = (
                await client.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
            ).json()
            numbers += [file["number"] for file in page["files"]]
            cursor = page["next_cursor"]
        assert numbers == [1, 2, 3, 4, 5]
        whole = (await client.get(path)).json()
        assert whole["next_cursor"] is None
        assert whole["files"][1] == {
            "number": 2,
            "file_name": "ledger-2026-11-24-00002.csv",
            "content_type": "text/csv",
            "row_count": 1,
            "file_size": 5,
            "sha256": whole["files"][1]["sha256"],
            "download_url": f"{path}/2",
        }
        for wrong in ("x", "bnVtYmVyIHg", "MjAyNi0xMS0yNA"):
            refused = await client.get(path, params={"cursor": wrong})
            assert (refused.status_code, refused.json()["code"]) == (422, "bad_cursor")


async def test_each_file_is_a_redirect_with_its_name(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client, httpx2.AsyncClient(timeout=patient(WITHIN)) as outside:
        job_id = await split(api, storage, client, 2)
        with capture_logs() as logs:
            answer = await client.get(f"/exports/jobs/{job_id}/files/2")
        assert answer.status_code == 307
        assert answer.headers["cache-control"] == "no-store"
        (line,) = [line for line in logs if line["event"] == "download.link_issued"]
        assert (line["job_id"], line["number"]) == (job_id, 2)
        content = await outside.get(answer.headers["location"])
        assert content.text == "id\n2\n"
        assert "ledger-2026-11-24-00002.csv" in content.headers["content-disposition"]
        part = await outside.get(answer.headers["location"], headers={"Range": "bytes=3-"})
        assert (part.status_code, part.text) == (206, "2\n")
        head = await client.head(f"/exports/jobs/{job_id}/files/2")
        assert (await outside.head(head.headers["location"])).status_code == 200
        scripts = await client.get(f"/exports/jobs/{job_id}/files/1", headers={"Accept": "application/json"})
        assert (await outside.get(scripts.json()["url"])).text == "id\n1\n"
        missing = await client.get(f"/exports/jobs/{job_id}/files/3")
        assert (missing.status_code, missing.json()["code"]) == (404, "no_such_file")
        for wrong in ("0", "-1", "x", str(2**31)):
            assert (await client.get(f"/exports/jobs/{job_id}/files/{wrong}")).status_code == 404


async def test_a_plain_download_of_several_files_says_where_they_are(
    api: Harness, storage: ObjectStore
) -> None:
    async with api.user() as client:
        job_id = await split(api, storage, client, 2)
        for method in ("GET", "HEAD"):
            answer = await client.request(method, f"/exports/jobs/{job_id}/download")
            assert answer.status_code == 409
            assert answer.headers["link"] == f'</exports/jobs/{job_id}/files>; rel="collection"'
        answer = await client.get(f"/exports/jobs/{job_id}/download")
        assert answer.json()["code"] == "several_files"
        assert f"/exports/jobs/{job_id}/files" in answer.json()["detail"]
        view = (await client.get(f"/exports/jobs/{job_id}")).json()
        assert (view["download_url"], view["files_url"]) == (None, f"/exports/jobs/{job_id}/files")
        assert (view["file_count"], view["split"]) == (2, {"rows": 1})
        manifest = (await client.get(f"/exports/jobs/{job_id}/manifest")).json()
        assert (manifest["file_name"], manifest["rows"]) == ("manifest.json", 2)


async def test_a_split_job_with_one_file_can_be_downloaded(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client, httpx2.AsyncClient(timeout=patient(WITHIN)) as outside:
        job_id = await split(api, storage, client, 1)
        answer = await client.get(f"/exports/jobs/{job_id}/download")
        assert (await outside.get(answer.headers["location"])).text == "id\n1\n"
        assert (await client.get(f"/exports/jobs/{job_id}")).json()["download_url"] is not None


async def test_a_single_file_is_listed_too(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client:
        job_id = await place(client)
        waiting = await client.get(f"/exports/jobs/{job_id}/files")
        assert (waiting.status_code, waiting.json()["code"]) == (409, "not_ready")
        await complete(api, storage, job_id)
        (file,) = (await client.get(f"/exports/jobs/{job_id}/files")).json()["files"]
        assert (file["number"], file["file_name"]) == (1, "ledger-2026-11-24.csv")
        assert (await client.get(f"/exports/jobs/{job_id}/files/1")).status_code == 307
        assert (await client.get(f"/exports/jobs/{job_id}/files/2")).status_code == 404
        view = (await client.get(f"/exports/jobs/{job_id}")).json()
        assert (view["file_count"], view["split"]) == (1, None)


async def test_a_list_that_was_lost_with_the_database_is_read_from_the_manifest(
    api: Harness, storage: ObjectStore
) -> None:
    async with api.user() as client:
        job_id = await split(api, storage, client, 3)
        before = (await client.get(f"/exports/jobs/{job_id}/files")).json()
        async with api.engine.begin() as connection:
            await connection.execute(delete(ExportFile))
        assert (await client.get(f"/exports/jobs/{job_id}/files")).json() == before
        assert (await client.get(f"/exports/jobs/{job_id}/files/3")).status_code == 307
        assert (await client.get(f"/exports/jobs/{job_id}/files/4")).status_code == 404


async def test_files_of_lost_attempts_are_not_listed(api: Harness, storage: ObjectStore) -> None:
    async with api.user() as client:
        job_id = await split(api, storage, client, 1)
        async with api.engine.begin() as connection:
            await connection.execute(
                insert(ExportFile).values(
                    job_id=UUID(job_id),
                    number=1,
                    key="jobs/x/99-lost/a",
                    attempt=99,
                    result="jobs/x/99-lost/manifest.json",
                    bucket="b",
                    file_name="a",
                    content_type="text/csv",
                    row_count=1,
                    file_size=1,
                    sha256="x",
                )
            )
        (file,) = (await client.get(f"/exports/jobs/{job_id}/files")).json()["files"]
        assert file["file_name"] == "ledger-2026-11-24-00001.csv"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"split": {"rows": 0}}, "split.rows"),
        ({"split": {"bytes": 1}}, "split.bytes"),
        ({"split": {}}, "split"),
        ({"split": {"rows": 1, "byte": 2}}, "split.byte"),
    ],
)
async def test_a_wrong_split_is_refused_with_its_field(api: Harness, wrong: Any, field: str) -> None:
    async with api.user() as client:
        answer = await client.post("/exports/jobs", json={"export_type": "ledger", "format": "csv", **wrong})
        assert answer.status_code == 422
        assert field in answer.text


async def test_a_schedule_keeps_its_split(api: Harness) -> None:
    async with api.user() as client:
        body = {"export_type": "ledger", "format": "csv", "schedule": "daily", "split": {"rows": 5}}
        made = (await client.post("/exports/schedules", json=body)).json()
        assert made["split"] == {"rows": 5}
        path = f"/exports/schedules/{made['id']}"
        changed = (await client.patch(path, json={"split": {"bytes": 2**20}})).json()
        assert changed["split"] == {"bytes": 2**20}
        run = (await client.post(f"{path}:run")).json()
        job = (await client.get(f"/exports/jobs/{run['export_job_id']}")).json()
        assert job["split"] == {"bytes": 2**20}
        assert (await client.patch(path, json={"split": None})).json()["split"] is None
