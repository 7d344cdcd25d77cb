"""``exporter doctor`` on a real stack, without problems and with each kind of problem."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from api.operations.doctor import Doctor
from dev.stack import Stack
from stream_app.db.engine import create_engine
from stream_app.doctor import checks
from stream_app.doctor.bucket import check_bucket
from stream_app.doctor.findings import Finding, State
from stream_app.doctor.part import Part
from stream_app.doctor.state_database import check_state_database
from stream_app.settings import Settings
from stream_app.sign_in_settings import DEVELOPMENT_SECRET
from stream_app.storage.listing import object_key
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest, Topic, request_event
from streaming_exporter.kafka_connection import ensure_topics
from tests.state_databases import TEMPLATE, create_database
from tests.store_proxy import Proxy, Request
from tests.waiting import until_async

ROOT = Path(__file__).parents[3]
NO_WORKER = "kafka workers"
"""The finding of every run without a worker, which are most of them."""


@dataclass(frozen=True)
class Report:
    """The findings of one run of the doctor."""

    findings: list[Finding]

    def of(self, state: State) -> dict[str, str]:
        """Return the findings with this state, by their place."""
        return {f"{item.area} {item.check}": item.what for item in self.findings if item.state is state}

    @property
    def problems(self) -> set[str]:
        return set(self.of(State.PROBLEM)) - {NO_WORKER}


Examine = Callable[..., Awaitable[Report]]


@pytest.fixture(scope="module")
def variables(stack: Stack) -> Iterator[dict[str, str]]:
    """Settings with a database, a bucket, topics and a group for this module."""
    name = f"doctor_{uuid4().hex[:8]}"
    url = stack.settings()["EXPORTER_DATABASE_URL"].rpartition("/")[0]
    asyncio.run(create_database(stack, name, TEMPLATE))
    own = {
        "EXPORTER_DATABASE_URL": f"{url}/{name}",
        "EXPORTER_KAFKA_GROUP": name,
        "EXPORTER_KAFKA_TOPIC_PREFIX": f"{name}.",
        "EXPORTER_S3_BUCKET": name.replace("_", "-"),
    }
    yield own
    asyncio.run(_execute(stack.postgres.admin_url(), f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


def _exporter(stack: Stack, variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "producers", *arguments]
    env = {**stack.environment(), **variables}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def own(settings: Settings, variables: dict[str, str]) -> Settings:
    """The same settings, with existing topics and bucket."""
    chosen = settings.model_copy(
        update={
            "database_url": SecretStr(variables["EXPORTER_DATABASE_URL"]),
            "kafka_group": variables["EXPORTER_KAFKA_GROUP"],
            "kafka_topic_prefix": variables["EXPORTER_KAFKA_TOPIC_PREFIX"],
            "s3_bucket": variables["EXPORTER_S3_BUCKET"],
        }
    )
    ObjectStore(chosen).ensure_bucket()
    asyncio.run(_begin_at_the_end(chosen))
    return chosen


async def _begin_at_the_end(settings: Settings) -> None:
    """Commit the end offsets, so that the group skips requests of other tests."""
    await ensure_topics(settings)
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id=settings.group,
        enable_auto_commit=False,
    ) as consumer:
        places = [
            TopicPartition(topic, number)
            for topic in map(settings.topic, (Topic.REQUESTS, Topic.TICKS, Topic.EVENTS))
            for number in await _numbers(consumer, topic)
        ]
        consumer.assign(places)
        await consumer.commit(await consumer.end_offsets(places))


async def _numbers(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client.force_metadata_update()
    await consumer.topics()
    return set(consumer.partitions_for_topic(topic) or ())


@pytest.fixture
def examine(own: Settings) -> Examine:
    async def run(**changed: Any) -> Report:
        full, part = changed.pop("full", False), changed.pop("part", Part.ALL)
        settings = own.model_copy(update=changed)
        return Report([item async for item in checks.run_checks(settings, full=full, part=part)])

    return run


@pytest.fixture
def bucket(own: Settings) -> ObjectStore:
    return ObjectStore(own)


@pytest.fixture
async def database(own: Settings, bucket: ObjectStore) -> AsyncIterator[asyncpg.Connection]:
    """The state database. Jobs and their files are removed after the test."""
    connection = await asyncpg.connect(own.database_url.get_secret_value())
    yield connection
    _empty(bucket)
    await connection.execute("DELETE FROM export_jobs")
    await connection.close()


def _empty(bucket: ObjectStore) -> None:
    for page in bucket.listing.pages():
        for found in page:
            bucket.removal.remove_listed(found)


async def insert(database: asyncpg.Connection, **values: Any) -> UUID:
    """Insert a job with these values. A timedelta stands for a time relative to now."""
    now = datetime.now(UTC)
    given = {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
    row = {"id": uuid4(), "user_id": "d", "export_type": "ledger", "format": "csv", **given}
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await database.execute(f"INSERT INTO export_jobs ({', '.join(row)}) VALUES ({places})", *row.values())
    return UUID(str(row["id"]))


async def test_a_healthy_system_has_no_findings(
    stack: Stack, examine: Examine, own: Settings, variables: dict[str, str], database: asyncpg.Connection
) -> None:
    """An export has completed, and its file exists. The findings are also printed as a table."""
    worker = await asyncio.to_thread(stack.start_worker, settings=variables)
    try:
        wanted = ExportRequest(user_id="d", export_type="ledger", format="csv", scope="all")
        event = request_event(wanted, source="/t")
        async with AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap_servers) as producer:
            await producer.send_and_wait(own.topic(Topic.REQUESTS), event.encode(), key=event.key)
        await until_async(lambda: database.fetchval("SELECT status = 'completed' FROM export_jobs"))
        report = await examine(full=True)
        assert report.of(State.PROBLEM) == {}
        assert report.of(State.OK)["bucket content"].startswith("1 files, 0 open uploads")
        assert report.of(State.OK)[NO_WORKER].startswith("1 workers")
        shown = await asyncio.to_thread(_exporter, stack, variables, "doctor")
        assert shown.returncode == 0, shown.stdout
        assert shown.stdout.splitlines()[-1].startswith("no problems")
    finally:
        await asyncio.to_thread(worker.stop)
    told = await asyncio.to_thread(_exporter, stack, variables, "doctor", "--json")
    assert told.returncode == 1
    wrong = [item for item in json.loads(told.stdout)["findings"] if item["state"] == "problem"]
    assert [f"{item['area']} {item['check']}" for item in wrong] == [NO_WORKER]
    assert wrong[0]["advice"].startswith("start a worker")


async def test_a_service_without_datasets_is_a_problem(examine: Examine, tmp_path: Path) -> None:
    """The built-in datasets of earlier versions are named, because a deployment can have relied on them."""
    without = (await examine(datasets_file=None)).of(State.PROBLEM)["datasets file"]
    assert "EXPORTER_DATASETS_FILE is not set" in without
    assert "enrollments, proofs and ledger" in without
    (tmp_path / "empty.toml").write_text("")
    empty = (await examine(datasets_file=tmp_path / "empty.toml")).of(State.PROBLEM)["datasets file"]
    assert f"{tmp_path / 'empty.toml'} has no table [datasets.NAME]" in empty
    bad = (await examine(datasets_file=tmp_path / "none.toml")).of(State.PROBLEM)["datasets file"]
    assert "none.toml" in bad
    assert "ledger" in (await examine()).of(State.OK)["datasets file"]


async def test_datasets_that_do_not_match_their_tables_are_problems(
    examine: Examine, own: Settings, tmp_path: Path
) -> None:
    """people A7: each with its place in the file; a source that is away is no problem of its datasets."""
    file = tmp_path / "datasets.toml"
    assert own.datasets_file is not None
    file.write_text(
        own.datasets_file.read_text()
        + """
[datasets.foreign]
table = "nowhere.at_all"

[datasets.renamed]
table = "ledger"
columns = ["id", "colour"]
owner = "holder"
"""
    )
    found = (await examine(datasets_file=file)).of(State.PROBLEM)
    wrong = {check: text for check, text in found.items() if check.startswith("datasets datasets.")}
    assert list(wrong) == [
        "datasets datasets.foreign.table",
        "datasets datasets.renamed.columns.1",
        "datasets datasets.renamed.owner",
    ], wrong
    assert "there is no table 'nowhere.at_all'" in wrong["datasets datasets.foreign.table"]
    assert "the table has no column 'colour'" in wrong["datasets datasets.renamed.columns.1"]
    away = SecretStr("postgresql://nobody@127.0.0.1:9/none")
    report = await examine(datasets_file=file, source_database_url=away)
    assert not [check for check in report.of(State.PROBLEM) if check.startswith("datasets datasets.")]
    assert "datasets tables" not in report.of(State.OK)


async def test_a_database_that_cannot_be_written_is_a_problem(
    examine: Examine, own: Settings, database: asyncpg.Connection
) -> None:
    name = make_url(own.database_url.get_secret_value()).database
    for setting, value in (("default_transaction_read_only", "on"), ("synchronous_commit", "off")):
        await database.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
    try:
        report = await examine()
        engine = create_engine(own, application="t")
        over_http = await Doctor(own, engine).report()
        await engine.dispose()
    finally:
        await database.execute(f"ALTER DATABASE {name} RESET ALL")
    assert report.problems == {"database writes"}
    assert "synchronous_commit = off" in report.of(State.WARNING)["database settings"]
    assert "its transactions are read only" in report.of(State.PROBLEM)["database writes"]
    assert "read_only" in [finding.code for finding in over_http.findings]


@pytest.mark.parametrize(
    ("named", "job"),
    [
        ("files of jobs", {"status": "completed", "file_path": "jobs/gone", "expires_at": timedelta(days=1)}),
        ("expiry", {"status": "completed", "expires_at": timedelta(hours=-2)}),
        ("admission", {"status": "pending", "created_at": timedelta(hours=-2)}),
        ("history", {"status": "expired", "created_at": timedelta(days=-402)}),
        ("queue", {"created_at": timedelta(hours=-2), "admitted_at": timedelta(hours=-2)}),
        ("leases", {"status": "processing", "lease_until": timedelta(hours=-1)}),
        ("outcomes", {"status": "processing", "lease_until": timedelta(hours=-1), "outcome": "{}"}),
    ],
)
async def test_jobs_with_problems_are_found(
    own: Settings, bucket: ObjectStore, database: asyncpg.Connection, named: str, job: dict[str, Any]
) -> None:
    """They are in the database and in the bucket. The checks of other systems do not read jobs."""
    await insert(database, **job)
    engine = create_engine(own, application="test")
    async with engine.connect() as connection:
        found = [item async for item in check_state_database(connection, own)]
        found += [item async for item in check_bucket(connection, bucket, own, full=False)]
    await engine.dispose()
    assert {name.partition(" ")[2] for name in Report(found).problems} == {named}


async def test_files_without_jobs(
    examine: Examine, bucket: ObjectStore, own: Settings, database: asyncpg.Connection
) -> None:
    """A file without a job, a file of a lost attempt, and an open upload."""
    job = await insert(database, status="failed", attempt=2)
    keys = [object_key(uuid4(), 1, "f"), object_key(job, 1, "f")]
    for key in keys:
        bucket.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    upload = object_key(job, 2, "g")
    bucket._client._create_multipart_upload(bucket.bucket, upload, {})
    try:
        report = await examine()
        assert report.problems == {"bucket jobs of files"}
        assert keys[0] in report.of(State.PROBLEM)["bucket jobs of files"]
        assert report.of(State.WARNING)["bucket leftovers"].startswith("2 files of ended attempts")
        engine = create_engine(own, application="test")
        async with engine.connect() as connection:
            found = [
                finding
                async for finding in check_bucket(
                    connection, bucket, own, full=True, now=datetime.now(UTC) + timedelta(days=1)
                )
            ]
        await engine.dispose()
        (overdue,) = [finding for finding in found if finding.check == "leftovers"]
        assert overdue.state is State.PROBLEM
        assert keys[1] in overdue.what
        assert upload in overdue.what
    finally:
        _empty(bucket)


async def test_an_api_needs_no_right_to_write_or_to_list_uploads(
    examine: Examine, own: Settings, database: asyncpg.Connection
) -> None:
    """Its key in docs/operations.md has neither. A file that is missing is found all the same."""

    def rule(request: Request) -> tuple[int, str] | None:
        is_read = request.method in ("GET", "HEAD") and "uploads" not in request.path
        return None if is_read else (403, "AccessDenied")

    with Proxy(own.s3_endpoint) as proxy:
        proxy.rule = rule
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        reached = {"s3_endpoint": f"http://127.0.0.1:{proxy.server_port}"}
        assert (await examine(part=Part.API, **reached)).problems == set()
        assert proxy.refused == 0
        await insert(
            database,
            status="completed",
            file_path=object_key(uuid4(), 1, "f"),
            expires_at=timedelta(days=1),
        )
        assert (await examine(part=Part.API, **reached)).problems == {"bucket files of jobs"}
        assert "bucket upload" in (await examine(part=Part.WORKER, **reached)).problems
        await asyncio.to_thread(proxy.shutdown)


async def test_unread_messages_are_a_problem(examine: Examine, own: Settings) -> None:
    async with AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap_servers) as producer:
        for _ in range(10):
            await producer.send_and_wait(own.topic(Topic.TICKS), b"x", partition=0)
    report = await examine()
    assert report.problems == {"kafka lag"}
    assert "exports.ticks[0]" in report.of(State.PROBLEM)["kafka lag"]
    await _begin_at_the_end(own)


async def test_a_short_retention_of_topics_that_people_read_later_is_a_warning(
    examine: Examine, own: Settings
) -> None:
    """Brokers keep 7 days by default. The topics that the service makes are kept for longer."""
    assert "kafka retention" in (await examine()).of(State.OK)
    audit = own.topic(Topic.AUDIT)
    admin = AIOKafkaAdminClient(bootstrap_servers=own.kafka_bootstrap_servers)
    await admin.start()
    try:
        for days, state in ((7, State.WARNING), (30, State.OK), (None, State.OK)):
            kept = "-1" if days is None else str(days * 86_400_000)
            changed = ConfigResource(ConfigResourceType.TOPIC, audit, {"retention.ms": kept})
            await admin.alter_configs([changed])
            await until_async(lambda kept=kept: _is_kept(admin, audit, kept))  # type: ignore[misc]
            found = (await examine()).of(state)["kafka retention"]
            assert (f"{audit} 7" in found) == (days == 7)
    finally:
        await admin.close()


async def _is_kept(admin: AIOKafkaAdminClient, topic: str, kept: str) -> bool:
    """Return whether the broker has the new configuration, which it applies a moment later."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None})]
    (answer,) = await admin.describe_configs(asked)
    return bool(answer.resources[0][4][0][1] == kept)


async def test_dead_letters_that_nobody_has_handled_are_a_warning(
    examine: Examine, own: Settings, database: asyncpg.Connection
) -> None:
    """P7. Marks of letters that are gone, of an earlier topic, or whose redrive is in doubt, do not count."""
    async with AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap_servers) as producer:
        topic = own.topic(Topic.DEAD_LETTERS)
        first, second = [await producer.send_and_wait(topic, b"x", partition=0) for _ in range(2)]

    async def finding(state: State, *marks: tuple[int, str]) -> str:
        await database.executemany(
            'INSERT INTO handled_dead_letters ("partition", "offset", written_at, state, handled_by) '
            "VALUES (0, $1, now(), $2, 'operator')",
            marks,
        )
        return (await examine()).of(state).get("kafka dead letters", "")

    try:
        await database.execute(
            'INSERT INTO handled_dead_letters ("partition", "offset", written_at, state, handled_by) '
            "VALUES (0, $1, now() - interval '1 day', 'redriven', 'operator')",
            first.offset,
        )
        assert (await finding(State.WARNING)).endswith("discarded: 2")
        in_doubt, gone = (second.offset, "redriving"), (second.offset + 1, "discarded")
        left = await finding(State.WARNING, (first.offset, "redriven"), in_doubt, gone)
        assert left.endswith("discarded: 1")
        await database.execute("DELETE FROM handled_dead_letters WHERE state = 'redriving'")
        assert await finding(State.OK, (second.offset, "discarded"))
    finally:
        await database.execute("DELETE FROM handled_dead_letters")


@pytest.mark.parametrize(
    ("named", "changed"),
    [
        ("database answers", {"database_url": SecretStr("postgresql://nobody:x@127.0.0.1:1/x")}),
        ("kafka answers", {"kafka_bootstrap_servers": "127.0.0.1:1"}),
        ("bucket answers", {"s3_endpoint": "http://127.0.0.1:1"}),
        ("bucket answers", {"s3_bucket": "there-is-none"}),
        ("source answers", {"source_database_url": SecretStr("postgresql://nobody:x@127.0.0.1:1/x")}),
        (
            "settings EXPORTER_JWT_SECRET",
            {"jwt_secret": SecretStr(DEVELOPMENT_SECRET), "public_url": "https://exports.example.com"},
        ),
        ("settings EXPORTER_S3_PUBLIC_ENDPOINT", {"public_url": "https://exports.example.com"}),
    ],
)
async def test_an_unavailable_part_is_found(examine: Examine, named: str, changed: dict[str, Any]) -> None:
    """The other parts are still checked."""
    report = await examine(**changed)
    assert named in report.problems
    assert "kafka topics" in report.of(State.OK) or named == "kafka answers"


@pytest.mark.parametrize("mid_report", [False, True])
async def test_the_report_over_http_has_the_topics_while_the_database_is_away(
    own: Settings, monkeypatch: pytest.MonkeyPatch, mid_report: bool
) -> None:
    """The database is away from the beginning, or when dead letters are counted: Kafka answers."""
    away = own.model_copy(update={"database_url": SecretStr("postgresql://nobody:x@127.0.0.1:1/x")})
    engine = create_engine(away, application="test")
    if mid_report:
        monkeypatch.setattr(Doctor, "_database", _no_findings)
    found = {f"{item.area} {item.check}": item for item in (await Doctor(away, engine).report()).findings}
    await engine.dispose()
    assert found["kafka topics"].state == State.OK
    assert "kafka answers" not in found
    named = "kafka dead letters" if mid_report else "database answers"
    assert [place for place, item in found.items() if "state database" in item.what] == [named]


async def _no_findings(_: Doctor) -> list[Finding]:
    return []


async def test_a_cause_that_several_checks_share_is_told_once(examine: Examine) -> None:
    """The checks of the bucket and of the clocks ask the same store; the text has no names of classes."""
    report = await examine(s3_endpoint="http://127.0.0.1:1")
    away = [what for what in report.of(State.PROBLEM).values() if "127.0.0.1:1" in what]
    assert len(away) == 1
    assert away[0].startswith("object store: 127.0.0.1:1: ")
    assert "(host=" not in away[0]


async def test_what_an_interrupted_doctor_left_is_no_problem(examine: Examine, bucket: ObjectStore) -> None:
    key = object_key(UUID(int=0), 1, "trial")
    bucket.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    try:
        report = await examine()
    finally:
        _empty(bucket)
    assert report.problems == set()
    assert report.of(State.OK)["bucket trials"].startswith("1 objects of an interrupted doctor")


async def test_failed_schedules_and_lost_mails_are_found(
    examine: Examine, database: asyncpg.Connection
) -> None:
    """A schedule that failed, one that the service paused, one that is late; mails that failed or wait."""
    hour = "now() {} interval '1 h'"
    for values in (
        f"true, 1, NULL, {hour.format('+')}",
        "false, 5, 'x', NULL",
        f"true, 0, NULL, {hour.format('-')}",
    ):
        await database.execute(
            "INSERT INTO scheduled_exports (id, user_id, export_type, format, schedule, active, failures, "
            f"paused_reason, next_run) VALUES (gen_random_uuid(), 'u', 'ledger', 'csv', 'daily', {values})"
        )
    for values in (
        "'failed', now(), now()",
        "'ambiguous', now(), now()",
        "'pending', now() - interval '2 h', NULL",
    ):
        await database.execute(
            "INSERT INTO deliveries (job_id, channel, address, event, topic, give_up_at, status, created_at, "
            f"finished_at) VALUES (gen_random_uuid(), 'mail', 'a@x.example', 'failed', 't', now(), {values})"
        )
    try:
        report = await examine()
    finally:
        await database.execute("DELETE FROM scheduled_exports")
        await database.execute("DELETE FROM deliveries")
    assert report.problems == {"schedules runs"}
    warnings = report.of(State.WARNING)
    assert warnings["schedules failures"].startswith("schedules whose last run failed: 2, of which")
    assert warnings["deliveries failures"].endswith("failed: 1, and that were possibly not sent: 1")
    assert warnings["deliveries waiting"].endswith("the oldest for 120 minutes")


async def test_a_source_that_refuses_the_role_is_found(
    stack: Stack, examine: Examine, settings: Settings
) -> None:
    """The parts after it are still checked."""
    name = f"closed_{uuid4().hex[:8]}"
    await _execute(stack.postgres.admin_url(), f"CREATE DATABASE {name}")
    try:
        await _execute(stack.postgres.admin_url(name), "REVOKE SELECT ON pg_roles FROM PUBLIC")
        report = await examine(
            source_database_url=SecretStr(f"{settings.source_dsn.rpartition('/')[0]}/{name}")
        )
        assert "no permission to read" in report.of(State.PROBLEM)["source answers"]
        assert "kafka topics" in report.of(State.OK)
    finally:
        await _execute(stack.postgres.admin_url(), f"DROP DATABASE {name} WITH (FORCE)")


async def test_more_connections_than_the_source_allows(examine: Examine) -> None:
    """The server of the tests allows 200."""
    report = await examine(worker_slots=100, source_streams=3)
    assert "up to 502 connections" in report.of(State.WARNING)["source connections"]
    report = await examine(worker_slots=30, source_streams=3)
    assert "source connections" not in report.of(State.WARNING)


async def test_missing_tables_are_found(examine: Examine, own: Settings) -> None:
    empty = own.database_url.get_secret_value().rpartition("/")[0] + "/postgres"
    report = await examine(database_url=SecretStr(empty))
    assert "database migrations" in report.problems
    assert "kafka topics" in report.of(State.OK)
