"""A worker dies at each step of a transfer to a destination. Another one finishes it: one set, or none.

All jobs run at the same time, each with its own deaths. Then each job is checked. The claims of dead workers
expire at once, so that no job waits for the time of a lease. A worker that dies for one job can be between
the commit and the point of another one. Then the other job is run again with another id.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest

from dev.s3 import S3Service
from dev.stack import Stack
from streaming_exporter.events import ExportRequest, Split, cancel_event, request_event
from tests.chaos.doomed import TRANSFER_POINTS
from tests.chaos.scenario import SETTINGS
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import Job, SystemClient
from tests.e2e.tables import psql
from tests.sftp_servers import SftpServer, sftp_server
from tests.waiting import until_async

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # the first test prepares what the other tests check
]

WAIT_SECONDS = 150.0

RUNS = 4
"""How often a job is run at the most until all its deaths have happened."""

SFTP, S3, COPY = "sftp", "s3", "copy"
"""The destinations: an SFTP server, an S3 server, and a bucket of the service's own store."""

BUCKETS = {S3: "depot-of-a-customer", COPY: "depot-beside"}

TABLE = """
    CREATE SCHEMA transfers;
    CREATE TABLE transfers.parcels AS
    SELECT n AS id, repeat(md5(n::text), 3125) AS body FROM generate_series(1, 100) n;
    GRANT USAGE ON SCHEMA transfers TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA transfers TO PUBLIC;
"""
"""Each row has 100 kB."""

SPLITS = {SFTP: (20, 30), S3: (90, 100), COPY: (20, 30)}
"""Rows of the first file, and of both. To S3 the first file is sent in two parts."""


@dataclass(frozen=True)
class Fate:
    """A job, its destination, and the points at which its workers die.

    A removed job is removed after the first of these deaths.
    """

    kind: str
    deaths: Sequence[str]
    removed: bool = False
    job_id: UUID = field(default_factory=uuid4)

    def __str__(self) -> str:
        return ", ".join((self.kind, *self.deaths, *(["removed"] if self.removed else [])))

    @property
    def runs(self) -> "list[Fate]":
        """This job, and the same with other ids."""
        others = [replace(self, job_id=uuid5(self.job_id, str(number))) for number in range(1, RUNS)]
        return [self, *others]

    @property
    def request(self) -> ExportRequest:
        """The request of the job."""
        first, last = SPLITS[self.kind]
        return ExportRequest(
            user_id=f"user of {self.job_id}",
            export_type="parcels",
            format="csv",
            scope="all",
            filters={"id": {"lte": last}},
            split=Split(rows=first),
            destination=self.kind,
        )


FATES = [
    Fate(SFTP, ["delivery claimed"]),
    Fate(SFTP, ["place recorded"]),
    Fate(SFTP, ["chunk sent"]),
    Fate(SFTP, ["not renamed"]),
    Fate(SFTP, ["renamed"]),
    Fate(SFTP, ["file recorded"]),
    Fate(SFTP, ["all recorded"]),
    Fate(SFTP, ["manifest not renamed"]),
    Fate(SFTP, ["set sent"]),
    Fate(SFTP, ["unfinished"]),
    Fate(SFTP, ["finished"]),
    Fate(SFTP, ["chunk sent", "not renamed", "manifest not renamed"]),
    Fate(SFTP, ["chunk sent", "removal recorded"], removed=True),
    Fate(SFTP, ["manifest not renamed", "file removed", "set removed"], removed=True),
    Fate(SFTP, ["set sent", "unfinished"], removed=True),
    Fate(S3, ["part sent"]),
    Fate(S3, ["not completed"]),
    Fate(S3, ["completed"]),
    Fate(S3, ["file recorded", "set sent"]),
    Fate(S3, ["part sent", "completed", "all recorded", "unfinished"]),
    Fate(S3, ["part sent", "removal recorded"], removed=True),
    Fate(S3, ["set sent", "object removed"], removed=True),
    Fate(COPY, ["copied"]),
]


@dataclass(frozen=True)
class Aftermath:
    """The state after all deliveries have ended. Files and uploads are those at the destinations."""

    runs: Mapping[UUID, list[Fate]]
    """The runs of each job. In the last one all deaths happened."""
    jobs: Mapping[UUID, Job]
    deliveries: Mapping[UUID, Sequence[Job]]
    sent: Mapping[UUID, Mapping[str, str]]
    """The checksums of each job's files by their names, as its record has them."""
    files: Mapping[UUID, Mapping[str, bytes]]
    uploads: Sequence[str]
    marks: set[str]
    told: Sequence[str]
    """The jobs whose deliveries were logged as sent, as often as they were."""


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture(scope="module")
def aftermath(stack: Stack, sftp: SftpServer, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    folder = tmp_path_factory.mktemp("doomed")
    runs = [run for fate in FATES for run in fate.runs]
    (folder / "plan.json").write_text(json.dumps({str(run.job_id): list(run.deaths) for run in runs}))
    psql(stack, TABLE)
    for bucket in BUCKETS.values():
        stack.s3.client().make_bucket(bucket_name=bucket)
    datasets = folder / "datasets.toml"
    datasets.write_text(described(stack.s3, sftp, folder))
    settings = {"EXPORTER_DATASETS_FILE": str(datasets), "DOOMED": str(folder)}
    with Supervisor(stack, 3, SETTINGS | settings) as workers:
        return asyncio.run(_lives(stack, sftp, folder, workers))


def described(store: S3Service, server: SftpServer, folder: Path) -> str:
    """Return the datasets file. The store has a second address, so that it looks like another one."""
    for key in ("access_key", "secret_key"):
        (folder / key).write_text(getattr(store, key))
    return f"""
    [datasets.parcels]
    table = "transfers.parcels"
    order = ["id"]

    [destinations.{SFTP}]
    kind = "sftp"
    host = "127.0.0.1"
    port = {server.port}
    user = "{server.user}"
    private_key_file = "{server.key}"
    host_key = "{server.host_key}"
    prefix = "in"
    path = "{{job_id}}/{{file_name}}"

    [destinations.{S3}]
    kind = "s3"
    endpoint = "http://localhost:{store.port}"
    bucket = "{BUCKETS[S3]}"
    access_key_file = "{folder}/access_key"
    secret_key_file = "{folder}/secret_key"
    prefix = "in"
    path = "{{job_id}}/{{file_name}}"

    [destinations.{COPY}]
    kind = "s3"
    bucket = "{BUCKETS[COPY]}"
    prefix = "in"
    path = "{{job_id}}/{{file_name}}"
    """


async def _lives(stack: Stack, server: SftpServer, folder: Path, workers: Supervisor) -> Aftermath:
    runs: dict[UUID, list[Fate]] = {fate.job_id: [] for fate in FATES}
    deliveries: dict[UUID, list[Job]] = {}
    async with SystemClient(stack) as client:
        missed = [fate.job_id for fate in FATES]
        for number in range(RUNS):
            if not missed:
                break
            fates = [fate.runs[number] for fate in FATES if fate.job_id in missed]
            deliveries |= await _delivered(client, workers, folder, fates)
            for first, fate in zip(missed, fates, strict=True):
                runs[first].append(fate)
            marks = {path.name for path in folder.iterdir()}
            missed = [
                first
                for first, fate in zip(missed, fates, strict=True)
                if not {f"{fate.job_id} {name}" for name in fate.deaths} <= marks
            ]
        ran = [run.job_id for each in runs.values() for run in each]
        jobs = await client.jobs(ran)
        sent = {
            job_id: {file["file_name"]: file["sha256"] for file in await client.listed_files(job)}
            for job_id, job in jobs.items()
        }
    files: dict[UUID, dict[str, bytes]] = {job_id: {} for job_id in ran}
    for path, content in server.files().items():
        _, job, name = path.split("/")
        files[UUID(job)][name] = content
    uploads = []
    s3 = stack.s3.client()
    for bucket in BUCKETS.values():
        for item in s3.list_objects(bucket_name=bucket, recursive=True):
            with s3.get_object(bucket_name=bucket, object_name=str(item.object_name)) as answer:
                _, job, name = str(item.object_name).split("/")
                files[UUID(job)][name] = answer.read()
        uploads += [str(upload.object_name) for upload in s3._list_multipart_uploads(bucket).uploads]
    marks = {path.name for path in folder.iterdir()}
    told = [str(entry.get("job_id")) for entry in workers.logged() if entry["event"] == "delivery.sent"]
    return Aftermath(runs, jobs, deliveries, sent, files, uploads, marks, told)


async def _delivered(
    client: SystemClient, workers: Supervisor, folder: Path, fates: Sequence[Fate]
) -> dict[UUID, list[Job]]:
    """Run jobs until their deliveries have ended; return the deliveries of each job."""
    for fate in fates:
        await client.publish(request_event(fate.request, job_id=fate.job_id, source="/chaos"))
    removed = [fate for fate in fates if fate.removed]
    waiting = {fate.job_id for fate in removed}
    held = {fate.job_id: folder / f"{fate.job_id} {fate.deaths[0]}" for fate in removed}
    expiring = asyncio.create_task(_expire(client, workers, held, waiting))
    try:
        await asyncio.gather(*(_remove(client, fate.job_id, held[fate.job_id], waiting) for fate in removed))
        return await _until_delivered(client, [fate.job_id for fate in fates])
    finally:
        expiring.cancel()
        await asyncio.wait({expiring})


async def _expire(
    client: SystemClient, workers: Supervisor, marks: Mapping[UUID, Path], waiting: set[UUID]
) -> None:
    """Let the claims of dead workers expire. Jobs that are to be removed wait until they are."""
    while True:
        dead = await asyncio.to_thread(workers.killed)
        held = [job_id for job_id in waiting if marks[job_id].exists()]
        await client.fetch(
            "UPDATE deliveries SET lease_until = now() - interval '1 s' "
            "WHERE status = 'sending' AND split_part(worker, '/', 1) = ANY($1) AND NOT job_id = ANY($2)",
            list(dead),
            held,
        )
        await asyncio.sleep(0.1)


async def _remove(client: SystemClient, job_id: UUID, mark: Path, waiting: set[UUID]) -> None:
    """Remove a job after its first death."""
    await until_async(mark.exists, within=WAIT_SECONDS, otherwise=mark.name)
    await client.publish(cancel_event(job_id, source="/chaos"))
    await client.until([job_id], lambda job: job["status"] == "expired", within=WAIT_SECONDS)
    waiting.discard(job_id)


async def _until_delivered(client: SystemClient, ids: Sequence[UUID]) -> dict[UUID, list[Job]]:
    """Wait until all deliveries have ended; return those of each job."""
    rows: list[Job] = []

    async def look() -> bool:
        rows[:] = await client.fetch("SELECT * FROM deliveries WHERE job_id = ANY($1)", list(ids))
        return len(rows) >= len(ids) and all(row["finished_at"] for row in rows)

    def unfinished() -> list[Any]:
        return [dict(row) for row in rows if not row["finished_at"]]

    await until_async(look, within=WAIT_SECONDS, every=0.1, otherwise=unfinished)
    return {job_id: [row for row in rows if row["job_id"] == job_id] for job_id in ids}


def test_a_worker_died_at_every_point() -> None:
    assert {name for fate in FATES for name in fate.deaths} == TRANSFER_POINTS.keys()


@pytest.mark.parametrize("fate", FATES, ids=str)
def test_a_destination_gets_one_complete_set_or_none(aftermath: Aftermath, fate: Fate) -> None:
    *others, last = aftermath.runs[fate.job_id]
    assert {f"{last.job_id} {name}" for name in last.deaths} <= aftermath.marks
    [delivery] = aftermath.deliveries[last.job_id]
    assert delivery["attempts"] >= len(fate.deaths) + (fate.deaths[-1] != "finished")
    for run in (*others, last):
        check_delivery(aftermath, run)


def check_delivery(aftermath: Aftermath, run: Fate) -> None:
    """Assert that the destination has the complete set of the job, or nothing if the job was removed."""
    [delivery] = aftermath.deliveries[run.job_id]
    assert [key for key in aftermath.uploads if str(run.job_id) in key] == []
    files = dict(aftermath.files[run.job_id])
    told = aftermath.told.count(str(run.job_id))
    if run.removed:
        assert (delivery["status"], delivery["reason"], told) == ("failed", "the file has expired", 0)
        assert list(files) == []
        return
    assert (delivery["status"], delivery["reason"]) == ("sent", None)
    assert told <= 1  # none if the worker died before it could log it
    listed = json.loads(files.pop("manifest.json"))["files"]
    found = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert found == aftermath.sent[run.job_id] == {item["file_name"]: item["sha256"] for item in listed}
    assert len(found) == 2
    assert delivery["progress"] is not None
    assert json.loads(delivery["progress"])["bytes"] == sum(map(len, files.values()))
