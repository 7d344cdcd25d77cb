"""A month in a minute: every run takes place once and every recipient gets one mail, in spite of faults.

A hundred schedules in twelve zones. The clock is simulated, all the rest is real. ``CHAOS_SEED=`` plans the
same month again.
"""

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from random import randrange
from uuid import UUID

import pytest
from sqlalchemy import insert

from dev.stack import Stack
from stream_app.db.engine import create_engine
from stream_app.schedules.models import ScheduledExport
from streaming_exporter.events import Event
from tests.chaos.doomed import RUN_POINTS
from tests.chaos.month import (
    END,
    GREAT_SILENCE,
    LONGEST_SILENCE,
    MARGIN,
    START,
    Month,
    Standing,
    job_of,
    month,
)
from tests.chaos.simulation import WAIT_SECONDS, Listener, Simulation, Tickers
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import Job, SystemClient
from tests.chaos.verdict import wrong_histories, wrong_objects
from tests.e2e.tables import psql
from tests.waiting import until_async

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first test prepares what the other tests check
]

WORKERS, TICKERS = 3, 2

SETTINGS = {
    "EXPORTER_LEASE_SECONDS": "3",
    "EXPORTER_DRAIN_SECONDS": "2",
    "EXPORTER_MAX_ATTEMPTS": "50",
    "EXPORTER_SCHEDULE_JITTER_SECONDS": "2",
    "EXPORTER_DELIVERY_TIMEOUT_SECONDS": "10",
}

FIRST_ROW, ROW_EVERY = START - MARGIN, timedelta(hours=3)
ROWS = (END - FIRST_ROW) // ROW_EVERY
TABLE = f"""
    CREATE SCHEMA month;
    CREATE TABLE month.events (owner text, n int, at timestamptz NOT NULL, PRIMARY KEY (owner, n));
    INSERT INTO month.events
    SELECT 'user-' || owner, n, timestamptz '{FIRST_ROW.isoformat()}' + n * interval '3 hours'
    FROM generate_series(0, 59) owner, generate_series(0, {ROWS - 1}) n;
    GRANT USAGE ON SCHEMA month TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA month TO PUBLIC;
"""
DATASET = '[datasets.events]\ntable = "month.events"\nowner = "owner"\ntime = "at"\norder = ["n"]\n'

ALONE = ("unmailed", "mailed")
POINTS = (*RUN_POINTS, "uploaded", "applied")
"""Points at which a worker dies, in addition to the deaths at random times."""


@dataclass(frozen=True)
class Aftermath:
    """The state after the month, when all work is done. ``ticks`` are those on Kafka, in their order."""

    plan: Month
    ticks: Sequence[datetime]
    jobs: Mapping[UUID, Job]
    schedules: Mapping[UUID, Job]
    told: Mapping[UUID, Sequence[Event]]
    objects: Sequence[str]
    uploads: Sequence[str]
    files: Mapping[UUID, bytes]
    deliveries: Sequence[Job]
    mails: Sequence[EmailMessage]
    killed: set[str]
    killed_tickers: int
    deaths: set[str]

    @cached_property
    def news(self) -> list[datetime]:
        """The ticks that were later than all ticks before them: only these can start runs."""
        return sorted({START, *accumulate(self.ticks, max)})

    @cached_property
    def due(self) -> list[tuple[Standing, list[datetime]]]:
        """Each schedule, and the runs that it must have."""
        return [(order, order.runs(self.news)) for order in self.plan.orders]


@pytest.fixture(scope="module")
def aftermath(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    seed = int(os.environ.get("CHAOS_SEED") or randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    plan = month(seed, points=POINTS, alone=ALONE, workers=WORKERS, tickers=TICKERS)
    folder = tmp_path_factory.mktemp("month")
    psql(stack, TABLE)
    (folder / "datasets.toml").write_text(DATASET)
    doom = folder / "doomed"
    doom.mkdir()
    (doom / "plan.json").write_text(json.dumps({str(job): [point] for job, point in plan.deaths.items()}))
    settings = {"EXPORTER_DATASETS_FILE": str(folder / "datasets.toml"), "DOOMED": str(doom), **SETTINGS}
    with (
        Supervisor(stack, WORKERS, settings) as workers,
        Tickers(stack, TICKERS, folder, sorted(plan.lost)) as tickers,
    ):
        found = asyncio.run(_month(stack, plan, workers, tickers, doom))
    return found


async def _month(stack: Stack, plan: Month, workers: Supervisor, tickers: Tickers, doom: Path) -> Aftermath:
    started = time.monotonic()
    others = {mail["Message-ID"] for mail in stack.smtp.mails()}
    async with SystemClient(stack) as client, Listener(client.settings.kafka_bootstrap_servers) as heard:
        engine = create_engine(client.settings, application="test")
        async with engine.begin() as connection:
            await connection.execute(insert(ScheduledExport), [order.row for order in plan.orders])
        await engine.dispose()
        await Simulation(plan, client, workers, tickers).play(heard)
        played = time.monotonic()
        ticks = await heard.all()
        await _settled(client)
        jobs = {row["id"]: row for row in await client.fetch("SELECT * FROM export_jobs")}
        objects, uploads = await asyncio.to_thread(client.objects)
        found = Aftermath(
            plan=plan,
            ticks=ticks,
            jobs=jobs,
            schedules={row["id"]: row for row in await client.fetch("SELECT * FROM scheduled_exports")},
            told=await client.history(jobs),
            objects=objects,
            uploads=uploads,
            files=await asyncio.to_thread(_files, client, jobs),
            deliveries=await client.fetch("SELECT * FROM deliveries"),
            mails=[
                mail for mail in await asyncio.to_thread(stack.smtp.mails) if mail["Message-ID"] not in others
            ],
            killed=workers.killed(),
            killed_tickers=tickers.killed,
            deaths={path.name for path in doom.iterdir()},
        )
    print(
        f"{len(jobs)} runs in {sum(job['attempt'] for job in jobs.values())} attempts, "
        f"{len(found.mails)} mails, {len(ticks)} ticks; {len(found.killed)} workers and "
        f"{found.killed_tickers} tickers killed; the month took {played - started:.0f} s, "
        f"all was done after {time.monotonic() - started:.0f} s; "
        f"deliveries: {dict(Counter(row['status'] for row in found.deliveries))}"
    )
    return found


async def _settled(client: SystemClient) -> None:
    """Wait until no tick is unread, no run is unfinished and no delivery is due."""

    async def look() -> bool:
        (row,) = await client.fetch(
            """
            SELECT (SELECT count(*) FROM scheduled_exports WHERE next_run <= $1) AS due,
                   (SELECT count(*) FROM export_jobs WHERE status IN ('pending', 'processing')) AS unfinished,
                   (SELECT count(*) FROM deliveries WHERE status IN ('pending', 'sending')) AS untold
            """,
            END,
        )
        left.update(row)
        return not any(row.values())

    left: dict[str, int] = {}
    await until_async(look, within=WAIT_SECONDS, every=0.2, otherwise=lambda: left)


def _files(client: SystemClient, jobs: Mapping[UUID, Job]) -> dict[UUID, bytes]:
    keys = {job_id: job["file_path"] for job_id, job in jobs.items() if job["file_path"]}
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(keys, pool.map(client.storage.read, keys.values()), strict=True))


def test_all_planned_faults_happened(aftermath: Aftermath) -> None:
    """Ticks were lost, repeated and late, and workers died at the planned points and times."""
    plan, ticks = aftermath.plan, aftermath.ticks
    assert plan.lost.isdisjoint(ticks)
    assert len(ticks) > len(set(ticks))
    assert any(tick < latest for tick, latest in zip(ticks, accumulate(ticks, max), strict=True))
    planned = {f"{job} {point}": point for job, point in plan.deaths.items()} | {"plan.json": "plan"}
    assert {planned[name] for name in aftermath.deaths} == {*POINTS, "plan"}
    assert len(aftermath.killed) > len(POINTS)
    assert aftermath.killed_tickers > 2 * TICKERS
    *rest, longest = sorted(later - earlier for earlier, later in pairwise(aftermath.news))
    assert rest[-1] <= LONGEST_SILENCE < GREAT_SILENCE <= longest
    assert any(len(order.runs()) > len(runs) for order, runs in aftermath.due)


def test_every_due_run_is_made_once_and_completes(aftermath: Aftermath) -> None:
    found = defaultdict(list)
    for job in aftermath.jobs.values():
        found[job["schedule_id"]].append(job["run_at"])
    assert {key: sorted(runs) for key, runs in found.items()} == {
        order.id: runs for order, runs in aftermath.due if runs
    }
    assert Counter(job["status"] for job in aftermath.jobs.values()) == {"completed": len(aftermath.jobs)}
    assert wrong_histories(aftermath.jobs, aftermath.told) == []


def test_every_schedule_waits_for_its_next_run(aftermath: Aftermath) -> None:
    for order, runs in aftermath.due:
        row = aftermath.schedules[order.id]
        state = {name: row[name] for name in ("active", "failures", "last_run", "next_run")}
        last = runs[-1] if runs else None
        wanted = {"active": True, "failures": 0, "last_run": last, "next_run": order.next_run(END)}
        assert state == wanted, order


def test_windows_have_no_gaps_and_no_overlaps(aftermath: Aftermath) -> None:
    for order, runs in aftermath.due:
        found = [_window(aftermath.jobs[job_of(order, run)]) for run in runs]
        assert found == order.windows(runs), order
        periods = [window for window in found if window is not None]
        assert all(first[1] == second[0] for first, second in pairwise(periods))
        assert all(start < end for start, end in periods)


def test_each_run_has_one_file_with_the_rows_of_its_window(aftermath: Aftermath) -> None:
    assert wrong_objects(aftermath.jobs, aftermath.objects, aftermath.uploads) == []
    for order, runs in aftermath.due:
        for run, window in zip(runs, order.windows(runs), strict=True):
            numbers = range(ROWS) if window is None else _rows_within(*window)
            content = aftermath.files[job_of(order, run)].decode()
            assert content.split() == ["n", *map(str, numbers)], (order, run)


def test_each_recipient_of_each_run_gets_one_mail(aftermath: Aftermath) -> None:
    """A delivery that is sent has one mail. A delivery whose worker died has at most one."""
    wanted = Counter(
        (job_of(order, run), address)
        for order, runs in aftermath.due
        for run in runs
        for address in order.recipients
    )
    assert Counter((row["job_id"], row["address"]) for row in aftermath.deliveries) == wanted
    arrived = Counter(
        (mail["Message-ID"].strip("<>").partition("@")[0], mail["X-Envelope-To"]) for mail in aftermath.mails
    )
    ambiguous = 0
    for row in aftermath.deliveries:
        count = arrived.pop((str(row["id"]), row["address"]), 0)
        if row["status"] == "ambiguous":
            ambiguous += 1
            assert count <= 1, dict(row)
            assert row["reason"] == "the worker died while it was sending"
            assert row["worker"].partition("/")[0] in aftermath.killed
        else:
            assert (row["status"], count) == ("sent", 1), dict(row)
    assert arrived == {}, "mails that the outbox does not have"
    assert ambiguous >= len(ALONE)


@pytest.mark.parametrize(("point", "count"), [("unmailed", 0), ("mailed", 1)])
def test_a_mail_whose_worker_died_is_ambiguous_and_not_repeated(
    aftermath: Aftermath, point: str, count: int
) -> None:
    jobs = [job for job in aftermath.plan.deaths if f"{job} {point}" in aftermath.deaths]
    assert jobs
    for job in jobs:
        (row,) = (row for row in aftermath.deliveries if row["job_id"] == job)
        arrived = [mail for mail in aftermath.mails if str(row["id"]) in mail["Message-ID"]]
        assert (row["status"], row["attempts"], len(arrived)) == ("ambiguous", 1, count)


def _window(job: Job) -> tuple[datetime, datetime] | None:
    if job["window"] is None:
        return None
    window = json.loads(job["window"])
    return datetime.fromisoformat(window["from"]), datetime.fromisoformat(window["to"])


def _rows_within(start: datetime, end: datetime) -> list[int]:
    return [number for number in range(ROWS) if start <= FIRST_ROW + number * ROW_EVERY < end]
