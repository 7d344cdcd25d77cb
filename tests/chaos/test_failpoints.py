"""A worker dies at each point of a job's life. Another worker continues, and the job ends once.

All jobs run at the same time, each with its own deaths, on workers that run one job at a time. Then each job
is checked. A worker that dies for one job can be between the commit and the point of another one. Then the
other job ends without its death, and is run again with another id.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import pytest

from dev.stack import Stack
from streaming_exporter.events import Event, ExportRequest, Split, cancel_event, request_event
from tests.chaos.doomed import POINTS
from tests.chaos.items import COLUMNS, ROWS, SLOW_ROWS_A_SECOND, Source
from tests.chaos.plan import PlannedJob
from tests.chaos.scenario import SETTINGS
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import Job, SystemClient
from tests.chaos.verdict import wrong_files, wrong_histories, wrong_objects
from tests.waiting import until_async

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first test prepares what the other tests check
]

WAIT_SECONDS = 150.0
"""Limit in seconds. An idle machine needs a quarter of it."""

DEATH_SECONDS = 5.0
"""Limit in seconds from the end of a job to its last death."""

RUNS = 4
"""How often a job is run at the most until all its deaths have happened."""

QUICK, LARGE, SLOW, HOPELESS = "quick", "large", "slow", "hopeless"
DIVIDED, SPLIT, BUNDLED = "divided", "split", "bundled"
EARLY, AT_ONCE, RUNNING, COMPLETED = "early", "at once", "running", "completed"


@dataclass(frozen=True)
class Fate:
    """A job, the points at which its workers die, and when it is cancelled."""

    deaths: Sequence[str]
    export: str = QUICK
    cancelled: str | None = None
    ending: str = "completed"
    attempts: int = 0
    """The least number of attempts. The death of a worker for another job can cost one more."""
    job_id: UUID = field(default_factory=uuid4)

    def __str__(self) -> str:
        return ", ".join((*self.deaths, self.export, *([self.cancelled] if self.cancelled else [])))

    @property
    def runs(self) -> "list[Fate]":
        """This job, and the same with other ids."""
        others = [replace(self, job_id=uuid5(self.job_id, str(number))) for number in range(1, RUNS)]
        return [self, *others]

    @property
    def order(self) -> PlannedJob:
        """The request."""
        slow = 3 * SLOW_ROWS_A_SECOND
        last = {LARGE: ROWS, DIVIDED: ROWS, SLOW: slow, BUNDLED: slow}.get(self.export, 200)
        if self.cancelled in (AT_ONCE, RUNNING):
            last = ROWS  # a slow export, which runs until it is cancelled
        filters = {"id": {"lte": last}}
        columns = {HOPELESS: ["nonsense"], BUNDLED: None}
        request = ExportRequest(
            user_id=f"user of {self.job_id}",
            export_type={SLOW: "slow", BUNDLED: "bundled"}.get(self.export, "items"),
            format="csv",
            scope="all",
            filters={"slow": filters} if self.export == BUNDLED else filters,
            columns=columns.get(self.export, list(COLUMNS)),
            split={DIVIDED: Split(rows=ROWS), SPLIT: Split(rows=60)}.get(self.export),
        )
        return PlannedJob(0, self.job_id, request, last)


FATES = [
    Fate(["accepted"], attempts=1),
    Fate(["admitted"], attempts=1),
    Fate(["claimed"], attempts=2),
    Fate(["started"], attempts=2),
    Fate(["copying"], SLOW, attempts=2),
    Fate(["copying", "uploaded", "outcome unstored"], BUNDLED, attempts=4),
    Fate(["uploading"], LARGE, attempts=2),
    Fate(["uploading", "swept"], LARGE, attempts=3),
    Fate(["uploaded"], attempts=2),
    Fate(["outcome unstored"], attempts=2),
    Fate(["planned"], DIVIDED, attempts=2),
    Fate(["part unfinished"], DIVIDED, attempts=1),
    Fate(["part completed"], DIVIDED, attempts=1),
    Fate(["part unfinished", "part completed", "listed"], DIVIDED, attempts=2),
    Fate(["file written"], SPLIT, attempts=2),
    Fate(["file written", "listed"], SPLIT, attempts=3),
    Fate(["outcome stored"], SPLIT, attempts=1),
    Fate(["published"], SPLIT, cancelled=COMPLETED, ending="expired"),
    # From here on the job has ended, whichever worker publishes it.
    Fate(["outcome stored"], attempts=1),
    Fate(["unsaid"], attempts=1),
    Fate(["published"], attempts=1),
    Fate(["unapplied"], attempts=1),
    Fate(["applied"], attempts=1),
    Fate(["outcome stored"], HOPELESS, ending="failed", attempts=1),
    Fate(["cancel admitted"], cancelled=EARLY, ending="cancelled", attempts=0),
    Fate(["unsaid"], SLOW, cancelled=AT_ONCE, ending="cancelled"),
    Fate(["cancel admitted"], SLOW, cancelled=RUNNING, ending="cancelled"),
    Fate(["outcome unstored"], SLOW, cancelled=RUNNING, ending="cancelled", attempts=1),
    Fate(["outcome unstored", "exhausted"], SLOW, cancelled=RUNNING, ending="cancelled", attempts=1),
    Fate(["outcome stored"], SLOW, cancelled=RUNNING, ending="cancelled", attempts=1),
    Fate(["expiring"], cancelled=COMPLETED, ending="expired"),
    Fate(["applied", "unsaid"], cancelled=COMPLETED, ending="expired"),
    Fate(["applied", "unsaid", "published"], cancelled=COMPLETED, ending="expired"),
]


@dataclass(frozen=True)
class Aftermath:
    """The state after all jobs have ended."""

    runs: dict[UUID, list[Fate]]
    """The runs of each job. In the last one all deaths happened."""
    jobs: dict[UUID, Job]
    told: dict[UUID, list[Event]]
    files: list[str]
    """Without those that a manifest lists."""
    uploads: list[str]
    marks: set[str]
    wrong_files: list[str]
    warnings: list[str]
    """Warnings and errors in the logs of the workers."""


@pytest.fixture(scope="module")
def aftermath(
    stack: Stack, source: Source, datasets: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Aftermath:
    folder = tmp_path_factory.mktemp("doomed")
    runs = [run for fate in FATES for run in fate.runs]
    (folder / "plan.json").write_text(json.dumps({str(run.job_id): list(run.deaths) for run in runs}))
    settings = {
        "EXPORTER_WORKER_SLOTS": "1",
        "EXPORTER_LEASE_SECONDS": "2",
        "EXPORTER_PARTS_MIN_BYTES": str(2**20),
        "DOOMED": str(folder),
    }
    with Supervisor(stack, 3, SETTINGS | datasets | settings) as workers:
        return asyncio.run(_lives(stack, source, folder, workers))


async def _lives(stack: Stack, source: Source, folder: Path, workers: Supervisor) -> Aftermath:
    async with SystemClient(stack) as client:
        together = [fate for fate in FATES if fate.cancelled != RUNNING]
        lives = await asyncio.gather(*(_lives_of(client, fate, folder) for fate in together))
        # One after the other, because no other job must kill the workers of these jobs.
        lives += [await _lives_of(client, fate, folder) for fate in FATES if fate.cancelled == RUNNING]
        ran = [run for runs in lives for run in runs]
        jobs = await client.jobs([run.job_id for run in ran])
        wrong = await wrong_files(client, source, [run.order for run in ran], jobs)
        told = await client.history(jobs.keys())
        files, uploads = await asyncio.to_thread(client.objects)
        completed = [job for job in jobs.values() if job["status"] == "completed"]
        listed = {file["key"] for job in completed for file in await client.listed_files(job)}
        assert listed <= set(files)
        files = [key for key in files if key not in listed]
    marks = {path.name for path in folder.iterdir()}
    warnings = [str(entry) for entry in workers.logged() if entry["level"] in ("warning", "error")]
    by_first = {runs[0].job_id: runs for runs in lives}
    return Aftermath(by_first, jobs, told, files, uploads, marks, wrong, warnings)


async def _lives_of(client: SystemClient, fate: Fate, folder: Path) -> list[Fate]:
    """Run one job until all its deaths have happened; return the runs."""
    runs = []
    for run in fate.runs:
        runs.append(run)
        await _live(client, run, folder)
        marks = [folder / f"{run.job_id} {name}" for name in run.deaths]
        # The record says that the job has ended a moment before a worker dies at one of the last points.
        with suppress(AssertionError):
            await until_async(lambda: all(mark.exists() for mark in marks), within=DEATH_SECONDS)  # noqa: B023
            break
    return runs


async def _live(client: SystemClient, fate: Fate, folder: Path) -> None:
    """Run one job from its request to its end, with a cancellation at the planned time."""
    request = request_event(fate.order.request, job_id=fate.job_id, source="/chaos")
    cancellation = cancel_event(fate.job_id, source="/chaos")
    if fate.cancelled == EARLY:
        await client.publish(cancellation)
        mark = folder / f"{fate.job_id} {fate.deaths[0]}"
        await until_async(mark.exists, within=WAIT_SECONDS, otherwise=mark.name)
    await client.publish(request)
    if fate.cancelled in (RUNNING, COMPLETED):
        state = "processing" if fate.cancelled == RUNNING else "completed"
        await client.until([fate.job_id], lambda job: job["status"] == state, within=WAIT_SECONDS)
    if fate.cancelled not in (None, EARLY):
        await client.publish(cancellation)
    await client.until(
        [fate.job_id],
        lambda job: job["status"] == fate.ending and job["outcome"] is None,
        within=WAIT_SECONDS,
    )


def test_a_worker_died_at_every_point() -> None:
    assert {name for fate in FATES for name in fate.deaths} == POINTS.keys()


@pytest.mark.parametrize("fate", FATES, ids=str)
def test_the_job_ends_once(aftermath: Aftermath, fate: Fate) -> None:
    runs = aftermath.runs[fate.job_id]
    assert {f"{runs[-1].job_id} {name}" for name in fate.deaths} <= aftermath.marks
    assert aftermath.jobs[runs[-1].job_id]["attempt"] >= fate.attempts
    for run in runs:
        job = aftermath.jobs[run.job_id]
        only = {run.job_id: job}
        assert job["status"] == fate.ending
        assert wrong_histories(only, {run.job_id: aftermath.told[run.job_id]}) == []
        mine = [key for key in aftermath.files if str(run.job_id) in key]
        uploads = [key for key in aftermath.uploads if str(run.job_id) in key]
        reported = [line for line in aftermath.warnings if str(run.job_id) in line]
        assert wrong_objects(only, mine, uploads) == [], "\n".join(reported)
        assert [text for text in aftermath.wrong_files if str(run.job_id) in text] == []
