"""The whole system as processes, and the clients that its users have."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from local.apps import Api, AppProcess
from local.ports import free_ports
from local.stack import Stack
from tests.documents import BLOCKS
from tests.e2e.tables import DATASETS, TABLES, psql

UNFINISHED = {"pending", "processing"}


@dataclass
class System:
    """A stack with a worker and the API on top."""

    stack: Stack
    api: Api
    worker: AppProcess
    client: httpx.Client
    extra: dict[str, str]
    """Settings that further workers need too."""
    metrics: str
    """Where the worker's metrics are."""

    def job(self, job_id: UUID | str) -> dict[str, Any] | None:
        """The job's record, or ``None`` while there is none."""
        response = self.client.get(f"/exports/jobs/{job_id}")
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return response.json()  # type: ignore[no-any-return]

    def ended(self, job_id: UUID | str, *, within: float = 60) -> dict[str, Any]:
        """The job's record once it has ended."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if job is not None and job["status"] not in UNFINISHED:
                return job
            time.sleep(0.1)
        raise AssertionError(
            f"job {job_id} has not ended after {within} s: {job}\n{self.worker.child.tail()}"
        )

    def file(self, job_id: UUID | str) -> bytes:
        """The job's file, by the link that the API hands out."""
        answer = self.client.get(f"/exports/jobs/{job_id}/download")
        assert answer.status_code == 307, answer.text
        response = httpx.get(answer.headers["location"])
        response.raise_for_status()
        return response.content

    def ask(self, **request: Any) -> str:
        """Ask for an export over HTTP; returns the job's id."""
        response = self.client.post("/exports/jobs", json=request)
        assert response.status_code == 202, response.text
        return str(response.json()["export_job_id"])


@pytest.fixture(scope="session")
def system(stack: Stack) -> Iterator[System]:
    """The system, with tables that nobody here designed made exportable by a file alone."""
    psql(stack, TABLES)
    folder = Path(tempfile.mkdtemp(dir=stack.run_dir))
    datasets = folder / "datasets.toml"
    datasets.write_text(DATASETS + "".join(block.text for block in BLOCKS if "shop_orders]" in block.text))
    extra = {"EXPORTER_DATASETS_FILE": str(datasets), "EXPORTER_LEASE_SECONDS": "3"}
    api = stack.start_api(settings=extra)
    (port,) = free_ports(1)
    worker = stack.start_worker(settings=extra | {"EXPORTER_METRICS_PORT": str(port)})
    token = stack.token("tester", "exports:all", "exports:admin")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=api.address, headers=headers, timeout=30) as client:
        yield System(stack, api, worker, client, extra, f"http://127.0.0.1:{port}/metrics")
