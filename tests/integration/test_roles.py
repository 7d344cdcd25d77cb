"""The roles of docs/operations.md have the permissions that the service needs, and no others."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import yaml

from dev.stack import Stack
from stream_app.db.engine import create_engine
from stream_app.db.migrations import upgrade
from stream_app.db.table_check import check_tables
from stream_app.exports.sources.source import Source
from stream_app.settings import Settings
from stream_app.worker.maintenance.job_cleaner import JobCleaner
from streaming_exporter.errors import ExporterError
from streaming_exporter.events import cancel_event
from tests.integration.jobs.jobs import HISTORY, Jobs, Requests, completed, request

ROOT = Path(__file__).parents[2]
ROLES, SCHEMA, AFTER, READER = re.findall(
    r"```sql\n(.*?)```", (ROOT / "docs" / "operations.md").read_text("utf-8"), re.DOTALL
)

HARDENED = "ALTER DEFAULT PRIVILEGES FOR ROLE exporter_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
"""What some operators do besides, so that each function needs a grant."""


class Deployment:
    """A state database and a source, set up as the document describes, with separate names."""

    def __init__(self, stack: Stack) -> None:
        self.postgres = stack.postgres
        self.suffix = uuid4().hex[:8]
        self.state, self.shop = f"state_{self.suffix}", f"shop_{self.suffix}"

    def named(self, sql: str) -> str:
        sql = re.sub(r"\bexporter_(owner|app|scaler|reader)\b", rf"exporter_\1_{self.suffix}", sql)
        return re.sub(r"DATABASE exporter\b", f"DATABASE {self.state}", sql)

    def url(self, role: str, database: str) -> str:
        name = f"exporter_{role}_{self.suffix}"
        return f"postgresql://{name}:change-me@127.0.0.1:{self.postgres.port}/{database}"

    async def run(self, sql: str, url: str) -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in filter(str.strip, self.named(sql).split(";")):
                await connection.execute(statement)
        finally:
            await connection.close()

    async def remove(self) -> None:
        roles = [f"exporter_{role}_{self.suffix}" for role in ("owner", "app", "scaler", "reader")]
        for database in (self.state, self.shop):
            await self.run(f"DROP DATABASE {database} WITH (FORCE)", self.postgres.admin_url())
        await self.run("; ".join(f"DROP ROLE {role}" for role in roles), self.postgres.admin_url())


@pytest.fixture
async def deployment(stack: Stack) -> AsyncIterator[Deployment]:
    made = Deployment(stack)
    admin = stack.postgres.admin_url
    await made.run(ROLES, admin())
    await made.run(SCHEMA, admin(made.state))
    await made.run(HARDENED, admin(made.state))
    owner = stack_settings(made.url("owner", made.state))
    await asyncio.to_thread(upgrade, owner)
    await made.run(AFTER, admin(made.state))
    await made.run(f"CREATE DATABASE {made.shop}", admin())
    await made.run(
        "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, total numeric);"
        "CREATE TABLE shop.cards (number text); INSERT INTO shop.orders VALUES (1, 9.5)",
        admin(made.shop),
    )
    await made.run(READER, admin(made.shop))
    yield made
    await made.remove()


def stack_settings(database_url: str, source_url: str | None = None) -> Settings:
    return Settings.model_validate({"database_url": database_url, "source_database_url": source_url})


async def test_the_working_role_takes_a_job_through_its_life(deployment: Deployment) -> None:
    engine = create_engine(stack_settings(deployment.url("app", deployment.state)), application="test")
    try:
        await check_tables(engine)
        jobs = Jobs(engine)
        requests = Requests(jobs.store)
        early, wanted = uuid4(), uuid4()
        await requests.handle(cancel_event(early, source="/t"))
        await requests.handle(request(early), request(wanted))
        (claim,) = await jobs.store.claim("w", 10)
        assert claim.job_id == wanted
        assert await jobs.store.store_outcome(claim, completed(claim))
        assert await jobs.apply(completed(claim))
        assert await jobs.status(wanted) == "completed"
        await deployment.run(
            "UPDATE export_jobs SET status = 'expired', created_at = now() - interval '500 days' "
            f"WHERE id = '{wanted}'",
            deployment.url("app", deployment.state),
        )
        assert await JobCleaner(jobs.store, HISTORY).clean() == 1
        assert await jobs.queries.get(wanted) is None
    finally:
        await engine.dispose()


async def test_the_working_role_changes_rows_and_nothing_else(deployment: Deployment) -> None:
    for statement in (
        "CREATE TABLE mine (id int)",
        "DROP TABLE export_jobs",
        "ALTER TABLE export_jobs DISABLE TRIGGER ALL",
        "UPDATE alembic_version SET version_num = '0001'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await deployment.run(statement, deployment.url("app", deployment.state))


async def test_the_scaler_can_count_jobs_and_read_nothing_else(deployment: Deployment) -> None:
    scaling = yaml.safe_load_all(
        (ROOT / "deploy" / "kubernetes" / "keda" / "scaling.yaml").read_text("utf-8")
    )
    (query,) = [
        trigger["metadata"]["query"] for part in scaling for trigger in part["spec"].get("triggers", ())
    ]
    connection = await asyncpg.connect(deployment.url("scaler", deployment.state))
    try:
        assert await connection.fetchval(query) == 0
        for column in ("user_id", "status"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval(f"SELECT {column} FROM export_jobs")
    finally:
        await connection.close()


async def test_the_reader_reads_only_the_granted_tables(deployment: Deployment) -> None:
    url = deployment.url("reader", deployment.shop)
    source = Source(stack_settings(url, url), connections=1)
    try:
        (row,) = await source.fetch("SELECT id, total FROM shop.orders")
        assert row["id"] == 1
        with pytest.raises(ExporterError, match="has no permission to read the table"):
            await source.fetch("SELECT * FROM shop.cards")
    finally:
        await source.close()
    for statement in ("INSERT INTO shop.orders VALUES (2, 1)", "CREATE TABLE shop.mine (id int)"):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
            await deployment.run(statement, url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await deployment.run("SET default_transaction_read_only = off; DELETE FROM shop.orders", url)
