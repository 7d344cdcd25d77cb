"""A worker with two sources takes changes of its datasets file, and goes on when one of them is away."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from dev.postgres import SOURCE
from streaming_exporter.events import Event, ExportRequest, request_event
from tests.e2e.conftest import System
from tests.e2e.deployment import Deployment
from tests.tcp_proxy import proxied
from tests.waiting import until_async

pytestmark = pytest.mark.slow

NEAR = '[datasets.near]\ntable = "public.ledger"\n'
FAR = '[sources.far]\nurl_env = "FAR_DATABASE_URL"\n[datasets.far]\nsource = "far"\ntable = "public.far"\n'


@pytest.fixture
def own(system: System, tmp_path: Path) -> Iterator[Deployment]:
    (tmp_path / "a.toml").write_text(NEAR)
    deployment = Deployment(system.stack, EXPORTER_DATASETS_FILE=str(tmp_path), EXPORTER_WORKER_SLOTS="2")
    yield deployment
    deployment.close()


async def _status(own: Deployment, job_id: UUID) -> str | None:
    connection = await asyncpg.connect(own.settings.state_dsn)
    try:
        found = await connection.fetchrow(
            "SELECT status, error_code, attempt FROM export_jobs WHERE id = $1", job_id
        )
    finally:
        await connection.close()
    return None if found is None else " ".join(str(item) for item in found if item is not None)


def _request(dataset: str) -> Event:
    wanted = ExportRequest(user_id=dataset, export_type=dataset, format="csv", scope="all")
    return request_event(wanted, source="/t")


async def _ended(own: Deployment, event: Event) -> str:
    async def ended() -> str | None:
        status = await _status(own, event.job_id)
        return status if status is not None and status.split()[0] in ("completed", "failed") else None

    return await until_async(ended)


async def test_a_worker_takes_a_source_that_is_added_and_waits_for_it(
    system: System, own: Deployment, tmp_path: Path
) -> None:
    """The source is added while the worker runs, is away, and comes back; nothing is lost."""
    name = f"far_{own.name}"
    admin = await asyncpg.connect(system.stack.postgres.admin_url())
    await admin.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
    url = system.stack.postgres.admin_url(SOURCE).rpartition("/")[0] + f"/{name}"
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE public.far AS SELECT generate_series(1, 100) AS id")
    await connection.close()
    async with proxied(url) as (proxy, address):
        variables = own.variables | {"FAR_DATABASE_URL": address}
        worker = await asyncio.to_thread(system.stack.start_worker, settings=variables)
        try:
            near, unknown = _request("near"), _request("far")
            await own.publish([near, unknown])
            assert (await _ended(own, near)).startswith("completed")
            assert await _ended(own, unknown) == "failed unknown_dataset 0"
            (tmp_path / "b.toml").write_text(FAR)
            await until_async(lambda: "datasets_file.reloaded" in worker.log.read_text())
            proxy.is_silent = True
            far = [_request("far") for _ in range(4)]
            await own.publish(far)
            again = [_request("near") for _ in range(4)]
            await own.publish(again)
            for event in again:
                assert (await _ended(own, event)).startswith("completed")
            assert (await _status(own, far[-1].job_id) or "").split()[0] in ("pending", "processing")
            os.replace(tmp_path / "b.toml", tmp_path / "c.toml")  # the same content has another name
            proxy.is_silent = False
            await proxy.drop()
            for event in far:
                assert (await _ended(own, event)).startswith("completed")
        finally:
            await asyncio.to_thread(worker.kill)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
