"""Bundles are of one moment: the snapshots of their sources, the settings in them, and what ends them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.bundles import exporter as bundles
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import RunBundle, bundle_of, opened, task_for
from tests.waiting import at_most, until_async

Build = Callable[..., Exporter]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Awaitable[object]]], None]:
    """Runs something while a bundle is exported: after its first dataset, before the others."""

    def install(work: Callable[[], Awaitable[object]]) -> None:
        original, calls = bundles._BundleExport._copy, []

        async def copy(self: Any, snapshot: Any, member: Any, feed: Any) -> None:
            calls.append(member)
            if len(calls) == 2:
                await work()
            await original(self, snapshot, member, feed)

        monkeypatch.setattr(bundles._BundleExport, "_copy", copy)

    return install


async def test_all_datasets_of_a_source_have_the_data_of_one_moment(
    members: tuple[Dataset, ...],
    run_bundle: RunBundle,
    database: asyncpg.Connection,
    between: Callable[..., None],
) -> None:
    between(
        lambda: database.execute(
            "INSERT INTO amounts VALUES (1000, 'u', 1, true, NULL);"
            "INSERT INTO nothing VALUES (1, 'u', 'new');"
            "DELETE FROM amounts WHERE id < 10"
        )
    )
    exported = await run_bundle(bundle_of(*members), "csv")
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [200, 40, 0]
    names = ["people", "amounts", "nothing"]
    as_of = exported.data.as_of.isoformat()
    assert manifest["snapshots"] == [{"number": 1, "as_of": as_of, "datasets": names}]
    assert "one moment" in opened(exported).read("README.txt").decode()


async def test_a_table_cannot_be_rewritten_before_its_turn(
    members: tuple[Dataset, ...],
    run_bundle: RunBundle,
    database: asyncpg.Connection,
    between: Callable[..., None],
) -> None:
    """A table that is truncated after the snapshot would look empty to it."""
    refused = []

    async def truncate() -> None:
        await database.execute("SET lock_timeout = '100ms'")
        try:
            await database.execute("TRUNCATE amounts")
        except asyncpg.LockNotAvailableError as error:
            refused.append(error)
        await database.execute("RESET lock_timeout")

    between(truncate)
    exported = await run_bundle(bundle_of(*members), "csv")
    assert exported.data.row_count == 240
    assert refused


async def test_a_table_that_is_filled_again_while_the_export_waits_does_not_look_empty(
    members: tuple[Dataset, ...], run_bundle: RunBundle, database: asyncpg.Connection, source_dsn: str
) -> None:
    """A refresh truncates and fills a table in one transaction. The snapshot from before it sees no row."""
    other = await asyncpg.connect(source_dsn)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'amounts'::regclass"
    try:
        refresh = other.transaction()
        await refresh.start()
        schema = await database.fetchval("SELECT current_schema()")
        await other.execute(f'SET LOCAL search_path TO "{schema}"; TRUNCATE amounts')
        await other.execute("INSERT INTO amounts VALUES (1, 'u', 1, true, NULL)")
        exporting = asyncio.ensure_future(run_bundle(bundle_of(*members), "csv"))
        await until_async(lambda: database.fetchval(waiting))
        await refresh.commit()
        with pytest.raises(Retryable, match="being changed"):
            await exporting
    finally:
        await other.close()
    manifest = json.loads(opened(await run_bundle(bundle_of(*members), "csv")).read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [200, 1, 0]


async def test_datasets_of_several_sources_have_a_snapshot_of_each(
    members: tuple[Dataset, ...], run_bundle: RunBundle, settings: Settings
) -> None:
    people, amounts, nothing = members
    crm = Source(settings, connections=2, name="crm")
    default = Source(settings, connections=2)

    class Both:
        def source_for(self, dataset: Dataset) -> Source:
            return crm if dataset.source == "crm" else default

        def each(self) -> tuple[Source, ...]:
            return default, crm

    bundle = bundle_of(people, amounts.model_copy(update={"source": "crm"}), nothing)
    try:
        exported = await run_bundle(bundle, "csv", {"sources": Both(), "catalog": Catalog(Both())})
    finally:
        await crm.close()
        await default.close()
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [item["datasets"] for item in manifest["snapshots"]] == [["people", "nothing"], ["amounts"]]
    assert [file["dataset"] for file in manifest["files"]] == ["people", "nothing", "amounts"]
    assert exported.data.as_of.isoformat() == min(item["as_of"] for item in manifest["snapshots"])
    text = opened(exported).read("README.txt").decode()
    assert "different databases" in text
    assert "crm" not in text + json.dumps(manifest)


@pytest.fixture
async def secured(members: tuple[Dataset, ...], database: asyncpg.Connection, schema: str) -> str:
    """A table with one row of each tenant, whose policy reads the setting ``app.tenant``."""
    await database.execute(
        """
        CREATE TABLE secured (id int PRIMARY KEY, user_id text, tenant text);
        INSERT INTO secured VALUES (1, 'u', 'acme'), (2, 'u', 'other');
        ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
        CREATE POLICY mine ON secured USING (tenant = pg_catalog.current_setting('app.tenant', true));
        """
    )
    return f"{schema}.secured"


async def test_settings_of_one_dataset_do_not_reach_the_next_one(run_bundle: RunBundle, secured: str) -> None:
    """A policy that reads a setting must not find what another dataset of the bundle has set."""
    session = {"app.tenant": {"claim": "tenant"}}
    with_setting = Dataset(name="with_setting", table=secured, owner="user_id", session=session)
    without = Dataset(name="without", table=secured, owner="user_id")
    bundle = bundle_of(with_setting, without, with_setting.model_copy(update={"name": "again"}))
    exported = await run_bundle(bundle, "csv", claims={"tenant": "acme"})
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [(file["dataset"], file["rows"]) for file in manifest["files"]] == [
        ("with_setting", 1),
        ("without", 0),
        ("again", 1),
    ]


async def test_settings_whose_names_differ_in_capital_letters_are_one_setting(
    run_bundle: RunBundle, secured: str
) -> None:
    """To empty the setting of one dataset must not empty that of another one."""
    bundle = bundle_of(
        *(
            Dataset(
                name=f"secured_{number}",
                table=secured,
                owner="user_id",
                session={name: {"claim": "tenant"}},
            )
            for number, name in enumerate(("app.tenant", "App.Tenant", "APP.TENANT"))
        )
    )
    exported = await run_bundle(bundle, "csv", claims={"tenant": "acme"})
    archive = opened(exported)
    manifest = json.loads(archive.read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [1, 1, 1]
    # Each file says that policies can hide rows, as the manifest of the single export does.
    assert [file["warnings"] for file in manifest["files"]] == [{"row_level_security": 1}] * 3
    assert manifest["warnings"] == exported.warnings == {"row_level_security": 1}


async def test_a_cancelled_bundle_leaves_nothing(
    members: tuple[Dataset, ...],
    exporter_of: Build,
    storage: ObjectStore,
    between: Callable[..., None],
) -> None:
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await asyncio.Event().wait()

    between(wait)
    bundle = bundle_of(*members)
    wanted = ExportRequest.parse({"user_id": "u", "export_type": bundle.name, "format": "csv"})
    task = task_for(wanted)
    running = asyncio.create_task(exporter_of(bundle).run(task, ExportProgress()))
    async with at_most(10):
        await reached.wait()
    running.cancel()
    async with at_most(2):
        with pytest.raises(asyncio.CancelledError):
            await running
    prefix = storage.folder(task.name, 1)
    assert not list(storage._client.list_objects(storage.bucket, prefix=prefix, recursive=True))


async def test_a_window_over_a_column_without_times_names_the_dataset(
    members: tuple[Dataset, ...], exporter_of: Build
) -> None:
    people, amounts, _ = members
    bundle = bundle_of(people, amounts.model_copy(update={"time": "paid"}))
    request = ExportRequest.parse({"user_id": "u", "export_type": bundle.name, "format": "csv"})
    window = {"from": "2026-01-01T00:00:00+00:00", "to": "2026-01-02T00:00:00+00:00"}
    with pytest.raises(Rejected, match=r"'amounts' .*cannot limit its rows to a window") as error:
        await exporter_of(bundle).run(replace(task_for(request), window=window), ExportProgress())
    assert error.value.code == "source_misconfigured"
