"""The whole system as processes, and clients of it."""

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from playwright.sync_api import Browser

from dev import sample
from dev.app_process import ApiProcess, AppProcess
from dev.postgres import STATE
from dev.process import free_ports
from dev.stack import Stack
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.collector import Collector, collecting
from tests.documents import BLOCKS
from tests.e2e.browser import Visit, launched, visiting
from tests.e2e.tables import DATASETS, TABLES, psql
from tests.endings import after_last_test
from tests.stacks import settings_of, start_from_now, stop_apps
from tests.waiting import WITHIN, patient, until, until_async

UNFINISHED = {"pending", "processing"}
RARELY = 0.1
"""Seconds between two calls of a process of the service: each costs it some milliseconds of its work."""
FOLDER = "tests/e2e/"
PAGES = f"{FOLDER}test_page"
_BROWSER = pytest.StashKey[Browser]()


@dataclass
class System:
    """A stack with a running worker and API."""

    stack: Stack
    api: ApiProcess
    worker: AppProcess
    client: httpx2.Client
    extra: dict[str, str]
    """Settings that further workers need too. Those workers have no traces."""
    metrics: str
    """The URL of the worker's metrics."""

    def job(self, job_id: UUID | str) -> dict[str, Any] | None:
        """Return the job's record, or ``None`` while there is none."""
        response = self.client.get(f"/exports/jobs/{job_id}")
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return response.json()  # type: ignore[no-any-return]

    def ended(self, job_id: UUID | str, *, within: float = 60) -> dict[str, Any]:
        """Wait until the job has ended; return its record."""
        job: dict[str, Any] | None = None

        def look() -> dict[str, Any] | None:
            nonlocal job
            job = self.job(job_id)
            return None if job is None or job["status"] in UNFINISHED else job

        return until(
            look, within=within, every=RARELY, otherwise=lambda: f"{job}\n{self.worker.child.tail()}"
        )

    async def processing(self, job_id: UUID | str) -> None:
        """Wait until a worker processes the job."""
        await until_async(lambda: (self.job(job_id) or {}).get("status") == "processing", every=RARELY)

    def file(self, job_id: UUID | str) -> bytes:
        """Download the job's file by the URL of the API."""
        answer = self.client.get(f"/exports/jobs/{job_id}/download")
        assert answer.status_code == 307, answer.text
        response = httpx2.get(answer.headers["location"], timeout=patient(WITHIN))
        response.raise_for_status()
        return response.content

    def ask(self, **request: Any) -> str:
        """Submit an export over HTTP; return the job's id."""
        response = self.client.post("/exports/jobs", json=request)
        assert response.status_code == 202, response.text
        return str(response.json()["export_job_id"])


@pytest.fixture(scope="module")
def system(whole: System) -> System:
    """The system. Processes that other tests have stopped are started again."""
    if not whole.worker.running:
        with ThreadPoolExecutor(1) as pool:  # the event loop of the browser can be in this thread
            # It must not read the requests of other tests.
            pool.submit(asyncio.run, start_from_now(settings_of(whole.stack))).result()
        whole.worker.start()
    if not whole.api.running:
        whole.api.start()
    return whole


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Receives the traces of the system."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="session")
def whole(stack: Stack, collector: Collector, pytestconfig: pytest.Config) -> Iterator[System]:
    """The system with traces, and with foreign tables that a datasets file makes exportable."""
    after_last_test(pytestconfig, FOLDER).callback(stop_apps, stack)
    psql(stack, TABLES)
    folder = Path(tempfile.mkdtemp(dir=stack.run_dir))
    datasets = folder / "datasets.toml"
    own = "".join(block.text for block in BLOCKS if "shop_orders]" in block.text)
    datasets.write_text(sample.DATASETS.read_text("utf-8") + DATASETS + own)
    # Short, for tests in which a worker dies; but a worker that lives renews in time also on a busy machine.
    extra = {"EXPORTER_DATASETS_FILE": str(datasets), "EXPORTER_LEASE_SECONDS": f"{patient(6):g}"}
    (port,) = free_ports(1)
    workers = {"EXPORTER_METRICS_PORT": str(port), "OTEL_SERVICE_NAME": "workers-of-ours"}
    webhooks = {"EXPORTER_WEBHOOK_SECRET": "whsec_" + "A" * 32, "EXPORTER_WEBHOOK_ALLOW_PRIVATE": "true"}
    traced = extra | collector.settings | webhooks
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(stack.start_worker, settings=traced | workers)
        api = stack.start_api(settings=traced)
        worker = starting.result()
    token = sign_token(settings_of(stack), "tester", ["exports:all", "exports:admin"])
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=api.address, headers=headers, timeout=patient(60)) as client:
        yield System(stack, api, worker, client, extra, f"http://127.0.0.1:{port}/metrics")


@pytest.fixture(scope="module")
def browser(system: System, pytestconfig: pytest.Config) -> Browser:
    """The browser of all modules of the page.

    It starts after the system, because its event loop must be the only running one of the thread. So it ends
    before other tests begin.
    """
    stash = pytestconfig.stash
    if _BROWSER not in stash:
        ending = after_last_test(pytestconfig, PAGES)
        stash[_BROWSER] = ending.enter_context(launched())
        ending.callback(stash.__delitem__, _BROWSER)
    return stash[_BROWSER]


@pytest.fixture
def visit(browser: Browser, system: System, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A tab on a desktop, or with the options of the test's parameter."""
    store = system.stack.settings()["EXPORTER_S3_ENDPOINT"]
    with visiting(browser, system.api.url, store, **getattr(request, "param", {})) as opened:
        yield opened


@pytest.fixture
def anybody(settings: Settings) -> str:
    """A token of a new user with the role to export all rows."""
    return sign_token(settings, f"user-{uuid4().hex[:8]}", ["exports:all"])


@pytest.fixture
def customer_id(system: System) -> str:
    """The customer who owns every seventh order, without exports and schedules.

    Those that other tests made belong to another user from now on.
    """
    user, other = "customer-1", f"earlier-{uuid4().hex[:8]}"
    for table in ("export_jobs", "scheduled_exports"):
        psql(system.stack, f"UPDATE {table} SET user_id = '{other}' WHERE user_id = '{user}'", database=STATE)
    return user


@pytest.fixture
def customer(settings: Settings, customer_id: str) -> str:
    """A token of that customer."""
    return sign_token(settings, customer_id)
