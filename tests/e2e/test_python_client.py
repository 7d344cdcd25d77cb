"""The Python clients on the running system: request, follow, download with resume, run again."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from producers.tokens import sign_token
from stream_app.settings import Settings
from streaming_exporter import AsyncExportClient, ExportClient, ExportRequest, Publisher
from streaming_exporter.errors import ApiError
from tests.documents import BLOCKS
from tests.e2e.conftest import System
from tests.waiting import patient

REQUEST = ExportRequest(
    user_id="python-1", export_type="ledger", format="csv", scope="all", filters={"id": {"lte": 50}}
)


def test_the_synchronous_client_requests_follows_downloads_and_runs_again(
    system: System, settings: Settings, tmp_path: Path
) -> None:
    with ExportClient(system.api.address, sign_token(settings, "python-1", ["exports:all"])) as client:
        job_id = client.submit(REQUEST)
        statuses = [job.status for job in client.events(job_id, timeout=patient(60))]
        assert statuses[-1] == "completed"
        (file,) = client.files(job_id)
        with client.file(job_id) as chunks:
            content = b"".join(chunks)
        part = tmp_path / f".{file.file_name}.{file.sha256[:16]}.part"
        part.write_bytes(content[:100])
        steps: list[int] = []
        (path,) = client.download(job_id, tmp_path, lambda done, total: steps.append(done))
        assert (steps[0], path.read_bytes()) == (100, content)
        assert hashlib.sha256(content).hexdigest() == file.sha256
        again = client.rerun(job_id, idempotency_key="again")
        assert client.rerun(job_id, idempotency_key="again") == again != job_id
        assert client.wait(again, timeout=patient(60)).status == "completed"
        assert client.datasets()["datasets"]


async def test_the_asynchronous_client_follows_a_job_that_was_requested_over_kafka(
    system: System, settings: Settings, tmp_path: Path
) -> None:
    job_id = uuid4()
    token = sign_token(settings, "python-1", ["exports:all"])
    async with Publisher(settings) as publisher, AsyncExportClient(system.api.address, token) as client:
        waiting = asyncio.create_task(client.wait(job_id, timeout=patient(60), admission=30))
        await publisher.request(REQUEST, job_id)
        job = await waiting
        assert (job.status, job.export_job_id) == ("completed", job_id)
        (path,) = await client.download(job_id, tmp_path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == job.sha256
        again = await client.rerun(job_id)
        assert (await client.wait(again, timeout=patient(60))).status == "completed"


ARCHIVE = ExportRequest.parse({**REQUEST.model_dump(exclude_unset=True), "encrypt": {"zip_password": True}})


def test_the_synchronous_client_lists_estimates_and_shows_a_password_once(
    system: System, settings: Settings
) -> None:
    with ExportClient(system.api.address, sign_token(settings, "python-2", ["exports:all"])) as client:
        assert client.estimate(ARCHIVE)["rows"] == 50
        job = client.submit_and_wait(ARCHIVE)
        assert [listed.export_job_id for listed in client.jobs(status="completed")] == [job.export_job_id]
        assert list(client.jobs(export_type="proofs")) == []
        assert (client.deliveries(job.export_job_id), client.destinations()) == ([], [])
        assert len(client.password(job.export_job_id)) >= 16
        with pytest.raises(ApiError) as shown:
            client.password(job.export_job_id)
        assert (shown.value.status, shown.value.problem_code) == (410, "password_shown")


async def test_the_asynchronous_client_lists_estimates_and_shows_a_password_once(
    system: System, settings: Settings
) -> None:
    token = sign_token(settings, "python-3", ["exports:all"])
    async with AsyncExportClient(system.api.address, token) as client:
        assert (await client.estimate(ARCHIVE))["rows"] == 50
        job = await client.submit_and_wait(ARCHIVE)
        listed = [found.export_job_id async for found in client.jobs(export_type="ledger")]
        assert listed == [job.export_job_id]
        assert (await client.deliveries(job.export_job_id), await client.destinations()) == ([], [])
        assert len(await client.password(job.export_job_id)) >= 16
        with pytest.raises(ApiError, match="shown"):
            await client.password(job.export_job_id)


def test_the_example_of_the_document_exports(system: System, settings: Settings, tmp_path: Path) -> None:
    (example,) = (block for block in BLOCKS if block.document.name == "clients.md")
    token = sign_token(settings, "python-1")
    names: dict[str, Any] = {"url": system.api.address, "token": token, "folder": tmp_path}
    exec(example.text, names)
    assert names["paths"] == list(tmp_path.iterdir())
