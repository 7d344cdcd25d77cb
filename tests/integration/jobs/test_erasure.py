"""After the erasure of a user or an address no table has any of their data (S15)."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import bindparam, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

import stream_app.__main__ as commands
from stream_app.jobs import erasure
from stream_app.jobs.erasure import ErasureResult, PersonalDataEraser
from stream_app.jobs.models import ExportFile, ExportJob
from stream_app.jobs.projector import apply_events
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox, insert_deliveries
from stream_app.schedules.models import ScheduledExport
from stream_app.settings import Settings
from stream_app.worker.maintenance.job_cleaner import JobCleaner
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import EventType, LifecycleData, lifecycle_event
from tests.integration.jobs.jobs import HISTORY, Jobs

ADA, BOB = "ada-lovelace", "bob"
ADDRESS = "ada.lovelace@example.com"
ENDS = ["completed", "failed", "cancelled", "expired"]


class Records:
    """The records of two users who both have mails sent to one address."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.removed: list[str] = []

    async def fill(self, user: str) -> list[UUID]:
        """Insert a schedule and a job of every outcome, with values in all columns."""
        schedule_id, jobs = uuid4(), {status: uuid4() for status in ENDS}
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(ScheduledExport).values(
                    id=schedule_id, user_id=user, export_type="ledger", format="csv", schedule="daily",
                    name=f"Ledger of {user}", filters={"owner": user}, parameters={"p": user},
                    claims={"org": user},
                    email_recipients=[ADDRESS, "ops@example.com"],
                    webhook=f"https://hooks.example.com/{user}",
                )
            )  # fmt: skip
            for status, job_id in jobs.items():
                await connection.execute(
                    insert(ExportJob).values(
                        id=job_id, user_id=user, export_type="ledger", format="csv", status=status,
                        name=f"Ledger of {user}",
                        filters={"owner": user}, parameters={"p": user}, claims={"org": user}, columns=[user],
                        options={"title": user}, source=f"/{user}",
                        recipients=[ADDRESS.upper(), "ops@example.com"], schedule_id=schedule_id,
                        webhook=f"https://hooks.example.com/{user}", file_name=f"{user}.csv",
                        file_path=f"jobs/{job_id}/{user}.csv", manifest={"filters": user}, sha256=user,
                        error_message=f"{user} is no number", completed_at=datetime.now(UTC),
                    )
                )  # fmt: skip
            await connection.execute(
                insert(ExportFile).values(
                    job_id=jobs["completed"], number=1, key=f"jobs/{user}/f", attempt=1, bucket="b",
                    file_name=f"{user}-00001.csv", content_type="t", row_count=1, file_size=1, sha256=user,
                )
            )  # fmt: skip
            await insert_deliveries(connection, list(jobs.values()))
            for statement in (
                "INSERT INTO claim_pauses (scope, paused_by) VALUES ('user:' || :user, 'boss')",
                "INSERT INTO claim_pauses (scope, paused_by) VALUES ('dataset:' || :dataset, :user)",
                'INSERT INTO handled_dead_letters ("partition", "offset", written_at, state, handled_by) '
                "VALUES (0, :offset, now(), 'discarded', :user)",
            ):
                values = {"user": user, "dataset": uuid4().hex, "offset": uuid4().int % 10**9}
                named = {name: value for name, value in values.items() if f":{name}" in statement}
                await connection.execute(text(statement), named)
        outbox = Outbox(self._engine)
        await outbox.unsubscribe(ADDRESS, f"user:{user}")
        await outbox.unsubscribe("other@example.com", f"schedule:{schedule_id}")
        await outbox.suppress(ADDRESS, f"550 no such user {ADDRESS}")
        return list(jobs.values())

    async def rows_with(self, words: str) -> list[str]:
        """Return the rows of all tables of the service that contain these words."""
        found = []
        async with self._engine.connect() as connection:
            tables = (
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            for (table,) in (await connection.execute(text(tables))).all():
                query = text(f'SELECT t::text FROM "{table}" AS t WHERE t::text ILIKE :words')
                rows = await connection.execute(query, {"words": f"%{words}%"})
                found += [f"{table}: {row[0]}" for row in rows]
        return found

    async def remove(self, key: str) -> None:
        self.removed.append(key)


@pytest.fixture
def records(engine: AsyncEngine) -> Records:
    return Records(engine)


@pytest.fixture
def eraser(engine: AsyncEngine, records: Records) -> PersonalDataEraser:
    return PersonalDataEraser(engine, records.remove)


async def test_no_table_has_data_of_an_erased_user(records: Records, eraser: PersonalDataEraser) -> None:
    jobs = await records.fill(ADA)
    await records.fill(BOB)
    others = len(await records.rows_with(BOB))
    done = await eraser.erase_user(ADA)
    assert (done.jobs, done.files, done.schedules) == (4, 1, 1)
    assert records.removed == [f"jobs/{jobs[0]}/{ADA}.csv"], "files that were removed before are left alone"
    assert await records.rows_with(ADA) == []
    assert len(await records.rows_with(BOB)) == others, "nobody else loses anything"
    assert len(await records.rows_with("forgotten:")) == 4
    assert (await eraser.erase_user(ADA)).jobs == 0


async def test_no_two_erased_jobs_can_be_told_to_be_of_one_user(
    engine: AsyncEngine, records: Records, eraser: PersonalDataEraser
) -> None:
    """A job that repeats another one has its owner, so its record must not name the other one any more."""
    jobs = await records.fill(ADA)
    async with engine.begin() as connection:
        values = {"rerun_of": jobs[0], "id": jobs[1]}
        await connection.execute(text("UPDATE export_jobs SET rerun_of = :rerun_of WHERE id = :id"), values)
    await eraser.erase_user(ADA)
    assert len(await records.rows_with(str(jobs[0]))) == 1


async def test_a_repeated_request_starts_no_second_job(
    engine: AsyncEngine, eraser: PersonalDataEraser
) -> None:
    jobs = Jobs(engine)
    job_id = await jobs.admit(ADA)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE export_jobs SET status = 'cancelled'"))
    await eraser.erase_user(ADA)
    assert await jobs.admit_again(job_id, ADA) == 0
    assert await jobs.status(job_id) == "cancelled"


async def test_a_user_with_unfinished_jobs_is_not_partly_erased(
    engine: AsyncEngine, records: Records, eraser: PersonalDataEraser
) -> None:
    await records.fill(ADA)
    job_id = await Jobs(engine).admit(ADA)
    before = await records.rows_with(ADA)
    assert await eraser.unfinished(ADA) == [job_id]
    with pytest.raises(Rejected, match="1 jobs of this user have not ended"):
        await eraser.erase_user(ADA)
    assert await records.rows_with(ADA) == before


async def test_an_interrupted_erasure_is_finished_by_the_next_one(
    engine: AsyncEngine, records: Records
) -> None:
    await records.fill(ADA)

    async def away(key: str) -> None:
        raise Retryable("the store is away")

    with pytest.raises(Retryable):
        await PersonalDataEraser(engine, away).erase_user(ADA)
    done = await PersonalDataEraser(engine, records.remove).erase_user(ADA)
    assert (done.jobs, done.files) == (4, 1)
    assert await records.rows_with(ADA) == []


async def test_a_job_whose_outcome_is_stored_during_an_erasure_is_erased_after_its_end(
    engine: AsyncEngine, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file expires while files are removed. Its outcome names the user, and only it can end the job."""
    monkeypatch.setattr(erasure, "POLL_SECONDS", 0.01)
    await records.fill(ADA)
    store = Jobs(engine).store
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE export_jobs SET expires_at = now() WHERE status = 'completed'"))
    outcomes: list[LifecycleData] = []

    async def expire(key: str) -> None:
        outcomes.extend(await store.unclaimed.expire_files())

    with pytest.raises(Rejected, match="1 jobs of this user have not ended"):
        await PersonalDataEraser(engine, expire).erase_user(ADA)
    assert len(outcomes) == 1
    assert len(await records.rows_with("forgotten:")) == 3
    waits = asyncio.create_task(PersonalDataEraser(engine, expire).erase_user(ADA, wait_seconds=30))
    async with engine.begin() as connection:
        assert await apply_events(connection, [lifecycle_event(EventType.EXPIRED, outcomes[0])])
    assert (await waits).jobs == 1
    assert await records.rows_with(ADA) == []


async def test_a_mail_that_waits_during_an_erasure_is_still_unsubscribed(
    engine: AsyncEngine, records: Records
) -> None:
    """Another worker sends mails while files are removed."""
    await records.fill(ADA)
    outbox = Outbox(engine, worker="w", lease=timedelta(hours=1))
    async with engine.begin() as connection:
        # One mail of the schedule, and one of the user's other jobs.
        await connection.execute(
            text("UPDATE deliveries SET topic = 'user:' || user_id WHERE event = 'failed'")
        )
        await connection.execute(text("UPDATE unsubscriptions SET address = :address"), {"address": ADDRESS})
        await connection.execute(text("DELETE FROM suppressed_addresses"))
    reasons: list[str | None] = []

    async def send(key: str) -> None:
        found = await outbox.claim(Channel.MAIL, 100, user_slots=100)
        reasons.extend(item.skip_reason for item in found if item.address.lower() == ADDRESS)

    await PersonalDataEraser(engine, send).erase_user(ADA)
    assert reasons == ["the recipient has unsubscribed"] * 2
    assert await records.rows_with(ADA) == []


async def test_gaps_of_schedules_are_removed_with_their_user(
    engine: AsyncEngine, records: Records, eraser: PersonalDataEraser
) -> None:
    await records.fill(ADA)
    await records.fill(BOB)
    gap = (
        "INSERT INTO schedule_gaps (schedule_id, window_start, window_end) "
        "SELECT id, now() - interval '1 day', now() FROM scheduled_exports"
    )
    async with engine.begin() as connection:
        await connection.execute(text(gap))
    await eraser.erase_user(ADA)
    owners = (
        "SELECT user_id FROM schedule_gaps LEFT JOIN scheduled_exports AS schedule "
        "ON schedule.id = schedule_gaps.schedule_id"
    )
    async with engine.connect() as connection:
        assert list(await connection.scalars(text(owners))) == [BOB]


async def test_gaps_that_an_erasure_has_left_are_removed(engine: AsyncEngine, records: Records) -> None:
    await records.fill(BOB)
    gap = (
        "INSERT INTO schedule_gaps (schedule_id, window_start, window_end) "
        "SELECT id, now() - interval '1 day', now() FROM scheduled_exports "
        "UNION ALL SELECT gen_random_uuid(), now() - interval '1 day', now()"
    )
    async with engine.begin() as connection:
        await connection.execute(text(gap))
    await JobCleaner(Jobs(engine).store, HISTORY).clean()
    async with engine.connect() as connection:
        left = "SELECT schedule_id IN (SELECT id FROM scheduled_exports) FROM schedule_gaps"
        assert list(await connection.scalars(text(left))) == [True]


async def test_the_schedules_of_the_user_start_no_run_while_jobs_end(
    engine: AsyncEngine, own_settings: Settings, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command waits for jobs to end, and until then a schedule could start new ones."""
    monkeypatch.setattr(commands, "CANCEL_SECONDS", 0)
    await records.fill(ADA)
    await Jobs(engine).admit(ADA)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE scheduled_exports SET next_run = now() - interval '1 hour'"))
    with pytest.raises(Rejected, match="1 jobs of this user have not ended"):
        await commands._erase(own_settings, ADA, None, leave_files=False)
    due = "SELECT active, next_run FROM scheduled_exports"
    async with engine.begin() as connection:
        assert [tuple(row) for row in await connection.execute(text(due))] == [(False, None)]
        end = "UPDATE export_jobs SET status = 'cancelled', outcome = NULL WHERE outcome IS NOT NULL"
        await connection.execute(text(end))
    done = await commands._erase(own_settings, ADA, None, leave_files=False)
    assert (done.jobs, done.schedules) == (5, 1)
    assert await records.rows_with(ADA) == []


@pytest.mark.parametrize("mended_by", ["exporter forget", "job cleaner"])
async def test_outcomes_that_an_erasure_has_left_are_removed(
    engine: AsyncEngine, records: Records, eraser: PersonalDataEraser, mended_by: str
) -> None:
    """No event ends such a job, so its outcome, with the user's id, would be published for ever."""
    (job_id, *_) = await records.fill(ADA)
    await eraser.erase_user(ADA)
    async with engine.begin() as connection:
        left = "UPDATE export_jobs SET outcome = CAST(:outcome AS jsonb) WHERE id = :id"
        await connection.execute(text(left), {"outcome": f'{{"user_id": "{ADA}"}}', "id": job_id})
    if mended_by == "job cleaner":
        await JobCleaner(Jobs(engine).store, HISTORY).clean()
    else:
        await eraser.erase_user("somebody else")
    assert await records.rows_with(ADA) == []


async def test_no_table_has_an_erased_address(
    engine: AsyncEngine, records: Records, eraser: PersonalDataEraser
) -> None:
    for user in ("u1", "u2"):
        await records.fill(user)
    unfinished = await Jobs(engine).admit("u3", recipients=[ADDRESS, "b_c%@example.com"])
    done = await eraser.erase_address(ADDRESS.title())
    assert (done.jobs, done.schedules, done.deliveries) == (9, 2, 4)
    assert await records.rows_with(ADDRESS) == []
    assert await records.rows_with("ops@example.com")
    assert await records.rows_with(str(unfinished))
    assert (await eraser.erase_address("https://hooks.example.com/u1")).schedules == 1
    assert await records.rows_with("hooks.example.com/u1") == []
    await Jobs(engine).admit("u4")
    async with engine.begin() as connection:  # a refused request can contain any value
        odd = "recipients = '{\"a\": 1}', webhook = 'https://odd.example.com/'"
        await connection.execute(text(f"UPDATE export_jobs SET {odd} WHERE user_id = 'u4'"))
    assert (await eraser.erase_address("https://odd.example.com/")).jobs == 1
    assert (await eraser.erase_address("bxc%@example.com")).jobs == 0, "no character is a wildcard"


async def test_an_address_is_erased_however_it_is_written(
    engine: AsyncEngine, eraser: PersonalDataEraser
) -> None:
    """Requests are stored with international domains in ASCII form, refused ones as they were written."""
    slack = "https://hooks.slack.com/services/T1/B1/x"
    stored = ("info@xn--bcher-kva.example", f"slack:{slack}")
    written = ("Info@Bücher.example", " info@bücher.example ", "INFO@xn--bcher-kva.example", slack, stored[1])
    for place, address in enumerate(written):
        jobs = [await Jobs(engine).admit(f"u{place}", recipients=[*stored, "x@example.com"]) for _ in "ab"]
        async with engine.begin() as connection:
            refused = "UPDATE export_jobs SET recipients = :recipients WHERE id = :id"
            await connection.execute(
                text(refused).bindparams(bindparam("recipients", type_=JSONB)),
                {"id": jobs[1], "recipients": ["info@bücher.example", f"Slack:{slack}", "x@example.com"]},
            )
        done = await eraser.erase_address(address)
        assert done.jobs == 2, address
        async with engine.begin() as connection:
            left = (await connection.scalars(text("SELECT recipients::text FROM export_jobs"))).all()
            await connection.execute(text("DELETE FROM export_jobs"))
        gone = "slack" if "slack" in address else "cher"
        assert all(gone not in row and "x@example.com" in row for row in left), address


@pytest.mark.parametrize(("done", "says"), [(ErasureResult(), True), (ErasureResult(schedules=1), False)])
def test_the_command_says_if_nothing_has_the_address(
    monkeypatch: pytest.MonkeyPatch, done: ErasureResult, says: bool
) -> None:
    async def erase(*_: object, **__: object) -> ErasureResult:
        return done

    monkeypatch.setattr(commands, "_erase", erase)
    result = CliRunner().invoke(commands.cli, ["forget", "--address", "x@example.com", "--yes"])
    assert result.exit_code == 0
    assert ("Check how it is written" in result.stderr) is says


async def test_the_name_of_a_destination_is_no_address(
    engine: AsyncEngine, eraser: PersonalDataEraser
) -> None:
    """Files of all users are there, and only their deliveries record where."""
    sending = (
        "INSERT INTO deliveries (job_id, channel, address, event, topic, give_up_at, status) VALUES "
        "(gen_random_uuid(), 'destination', 'acme', 'completed', '', now(), 'sending') RETURNING id"
    )
    async with engine.begin() as connection:
        delivery = await connection.scalar(text(sending))
    assert (await eraser.erase_address("acme")).deliveries == 0
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT id FROM deliveries")) == delivery


@pytest.mark.parametrize("topic", ["user:u", f"schedule:{UUID(int=5)}"])
async def test_unsubscribed_addresses_are_removed_when_no_delivery_names_them(
    engine: AsyncEngine, topic: str
) -> None:
    """Q11: an unsubscription is kept while it stops mails, and then no longer than the history."""
    outbox, job_cleaner = Outbox(engine), JobCleaner(Jobs(engine).store, HISTORY)
    await outbox.unsubscribe("a@example.com", topic)
    await outbox.suppress("a@example.com", "550")
    old = text("UPDATE unsubscriptions SET created_at = :at")
    older = text("UPDATE suppressed_addresses SET created_at = :at")
    at = {"at": datetime.now(UTC) - HISTORY - timedelta(days=1)}

    async def kept() -> int:
        async with engine.connect() as connection:
            query = (
                "SELECT (SELECT count(*) FROM unsubscriptions) + (SELECT count(*) FROM suppressed_addresses)"
            )
            return int(await connection.scalar(text(query)) or 0)

    await job_cleaner.clean()
    assert await kept() == 2, "both are young"
    async with engine.begin() as connection:
        await connection.execute(old, at)
        await connection.execute(older, at)
        await connection.execute(
            text(
                "INSERT INTO deliveries (job_id, channel, address, event, topic, give_up_at, status) VALUES "
                "(gen_random_uuid(), 'mail', 'A@example.com', 'completed', :topic, now(), 'skipped')"
            ),
            {"topic": topic},
        )
    await job_cleaner.clean()
    assert await kept() == 2, "a mail was kept back by them within the history"
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM deliveries"))
    await job_cleaner.clean()
    assert await kept() == 0
