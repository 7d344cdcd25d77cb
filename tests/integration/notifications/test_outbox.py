"""Deliveries are inserted once, in the transaction that ends the job; and lost claims are settled."""

import json
import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import TextClause, text

from stream_app.chat_addresses import shown_address
from stream_app.jobs.states import Status
from stream_app.notifications.models import Channel, DeliveryStatus
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.statistics import (
    COUNT,
    LOST,
    DeliveryStatistics,
    count_deliveries,
    list_lost,
)
from tests.integration.notifications.conftest import Office, failed
from tests.waiting import patient

URL = "https://hooks.example.com/x"
OTHER_URL = "https://other.example.com/x"


def outbox(office: Office, worker: str = "w", *, lease: float = 60) -> Outbox:
    return Outbox(office.engine, worker=worker, lease=timedelta(seconds=lease))


async def test_each_recipient_has_one_delivery_however_often_the_event_comes(office: Office) -> None:
    data = await office.job("a@example.com", "b@example.com", webhook=URL)
    await office.end(data, data)
    await office.end(data)
    await office.end(data, failed(data))
    rows = await office.rows(data.job_id)
    assert [(row.channel, row.address) for row in rows] == [
        ("mail", "a@example.com"),
        ("mail", "b@example.com"),
        ("webhook", URL),
    ]
    assert {row.event for row in rows} == {"completed"}


async def test_several_jobs_of_one_batch_get_their_deliveries(office: Office) -> None:
    first, second, third = [await office.job(f"{name}@example.com") for name in "abc"]
    await office.end(first, failed(second), third.model_copy(update={"status": Status.CANCELLED}))
    assert [(row.address, row.event, row.topic) for row in await office.rows()] == [
        ("a@example.com", "completed", "user:u"),
        ("b@example.com", "failed", "user:u"),
    ]


async def test_an_unsubscribed_address_gets_no_mail_about_repeated_runs_of_the_schedule(
    office: Office,
) -> None:
    """A repeated run is no run of the schedule, and its mails have the topic of the user's other jobs."""
    schedule, box = uuid4(), outbox(office)
    await box.unsubscribe("gone@example.com", f"schedule:{schedule}")
    await box.unsubscribe("gone@example.com", f"schedule:{uuid4()}")
    run = await office.ended(schedule_id=schedule)
    again = await office.ended("gone@example.com", "there@example.com", rerun_of=run)
    twice = await office.ended("gone@example.com", rerun_of=again)
    lost = await office.ended("gone@example.com", rerun_of=uuid4())
    other = await office.ended("gone@example.com", rerun_of=await office.ended())
    found = {
        (item.job_id, item.address): item.skip_reason
        for item in await box.claim(Channel.MAIL, 10, user_slots=10)
    }
    reason = "the recipient has unsubscribed"
    assert found == {
        (again, "gone@example.com"): reason,
        (again, "there@example.com"): None,
        (twice, "gone@example.com"): reason,
        (lost, "gone@example.com"): None,
        (other, "gone@example.com"): None,
    }


async def test_a_schedules_mails_have_a_topic_of_their_own(office: Office) -> None:
    schedule = uuid4()
    job = await office.ended("a@example.com", schedule_id=schedule)
    (row,) = await office.rows(job)
    assert row.topic == f"schedule:{schedule}"


@pytest.mark.parametrize("recipients", ["text", 5, {"a": 1}, None, []])
async def test_invalid_recipients_do_not_block_others(office: Office, recipients: Any) -> None:
    data = await office.job(recipients=recipients)
    await office.end(failed(data))
    assert await office.rows(data.job_id) == []


async def test_the_recipients_of_a_refused_request_are_limited(office: Office) -> None:
    names = ["x" * 100_000, {"a": 1}, None, *(f"u{number}@example.com" for number in range(100))]
    data = await office.job(*names, webhook="https://" + "ü" * 50_000)
    await office.end(failed(data))
    rows = await office.rows(data.job_id)
    assert {row.channel for row in rows} == {"mail"}
    assert 40 < len(rows) < 50


async def test_a_mail_knows_the_destination_that_has_the_files_already(office: Office) -> None:
    jobs = [await office.ended("a@example.com", user_id=f"user-{number}") for number in range(3)]
    async with office.engine.begin() as connection:
        for job, status in zip(jobs, ("sent", "sending"), strict=False):
            await connection.execute(
                text(
                    "INSERT INTO deliveries (job_id, channel, address, event, topic, status, give_up_at) "
                    "VALUES (:job, 'destination', 'acme', 'completed', '', :status, now())"
                ),
                {"job": job, "status": status},
            )
    claimed = {item.job_id: item.sent_to for item in await outbox(office).claim(Channel.MAIL, 3)}
    assert claimed == dict(zip(jobs, ("acme", None, None), strict=True))


async def test_a_delivery_is_claimed_by_one_worker(office: Office) -> None:
    jobs = {await office.ended(f"u{number}@example.com", user_id=f"user-{number}") for number in range(5)}
    one, two = outbox(office, "one"), outbox(office, "two")
    first, second = await one.claim(Channel.MAIL, 3), await two.claim(Channel.MAIL, 3)
    assert (len(first), len(second)) == (3, 2)
    assert {item.job_id for item in first} | {item.job_id for item in second} == jobs
    assert await one.claim(Channel.MAIL, 3) == []
    assert await one.claim(Channel.WEBHOOK, 3) == []


async def test_a_revoked_link_is_not_sent(office: Office) -> None:
    job = await office.ended("a@example.com", "b@example.com", webhook=URL)
    assert await outbox(office).revoke(job, "A@example.com") == ["a@example.com"]
    reasons = {item.address: item.skip_reason for item in await outbox(office).claim(Channel.MAIL, 5)}
    assert reasons == {"a@example.com": "the link was revoked", "b@example.com": None}
    assert await outbox(office).revoke(job) == ["b@example.com", URL]
    (hook,) = await outbox(office).claim(Channel.WEBHOOK, 5)
    assert hook.skip_reason == "the link was revoked"


async def test_links_of_a_job_that_runs_are_revoked_before_they_exist(office: Office) -> None:
    """The end of the job inserts its other deliveries only."""
    chat, other = (f"slack:https://hooks.slack.com/services/{name}" for name in ("a", "b"))
    data = await office.job("a@example.com", "b@example.com", chat, other, webhook=URL)
    job = data.job_id
    box = outbox(office)
    assert await box.revoke(job, shown_address(chat)) == [shown_address(chat)]
    assert await box.revoke(job, "B@example.com") == ["b@example.com"]
    assert await box.revoke(job, "B@example.com") == [], "it is revoked already"
    assert await box.revoke(job, "c@example.com") is None
    assert await box.claim(Channel.MAIL, 5) == []
    await office.end(data)
    states = {row.address: (row.status, row.revoked_at is None) for row in await office.rows(job)}
    assert states == {
        "a@example.com": ("pending", True),
        "b@example.com": ("skipped", False),
        chat: ("skipped", False),
        other: ("pending", True),
        URL: ("pending", True),
    }
    everything = await office.job("a@example.com", webhook=URL)
    assert await box.revoke(everything.job_id) == ["a@example.com", URL]
    await office.end(everything)
    assert set((await office.statuses(everything.job_id)).values()) == {"skipped"}


async def test_an_address_is_found_however_it_is_written(office: Office) -> None:
    job = await office.ended("info@xn--bcher-kva.example", "slack:https://hooks.slack.com/services/a")
    box = outbox(office)
    assert await box.revoke(job, "Info@bücher.example") == ["info@xn--bcher-kva.example"]
    shown = shown_address("slack:https://hooks.slack.com/services/a")
    assert await box.revoke(job, "https://hooks.slack.com/services/a") == [shown]
    await office.run("UPDATE deliveries SET status = 'failed'")
    await box.suppress("info@xn--bcher-kva.example", "no such mailbox")
    assert await box.resend(job, "info@bücher.example") == ["info@xn--bcher-kva.example"]
    (mail,) = await box.claim(Channel.MAIL, 5)
    assert mail.skip_reason == "the link was revoked"
    async with office.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM suppressed_addresses")) == 0


async def test_after_a_lost_claim_a_mail_is_ambiguous_and_a_webhook_is_due_again(
    office: Office,
) -> None:
    job = await office.ended("a@example.com", webhook=URL)
    lost = outbox(office, lease=-1)
    (mail,), (hook,) = await lost.claim(Channel.MAIL, 5), await lost.claim(Channel.WEBHOOK, 5)
    kept = await office.ended("b@example.com", webhook=OTHER_URL)
    alive = outbox(office, "alive", lease=patient(60))
    for channel in (Channel.MAIL, Channel.WEBHOOK):
        assert [item.job_id for item in await alive.claim(channel, 5)] == [kept]
    settled = await outbox(office).recover_expired()
    assert {(item.channel, item.status) for item in settled} == {
        ("mail", "ambiguous"),
        ("webhook", "pending"),
    }
    assert await outbox(office).recover_expired() == []
    assert await outbox(office).claim(Channel.MAIL, 5) == []
    (again,) = await outbox(office).claim(Channel.WEBHOOK, 5)
    assert (again.delivery_id, again.attempt) == (hook.delivery_id, 2)
    assert await lost.finish(hook, DeliveryStatus.SENT) is False, "it is another attempt's"
    assert await lost.finish(mail, DeliveryStatus.SENT) is True, "it was only slow, and knows better"
    assert await office.statuses(job) == {"a@example.com": "sent", URL: "sending"}
    assert await office.statuses(kept) == {"b@example.com": "sending", OTHER_URL: "sending"}


async def test_a_delivery_fails_after_a_day_of_retries(office: Office) -> None:
    job = await office.ended("a@example.com")
    (notification,) = await outbox(office).claim(Channel.MAIL, 1)
    assert await outbox(office).postpone(notification, timedelta(0), "421 busy") == "pending"
    (notification,) = await outbox(office).claim(Channel.MAIL, 1)
    await office.run("UPDATE deliveries SET give_up_at = now() + interval '1 minute'")
    assert await outbox(office).postpone(notification, timedelta(minutes=5), "421 busy") == "failed"
    (row,) = await office.rows(job)
    assert (row.reason, row.attempts) == ("421 busy", 2)
    assert await outbox(office).postpone(notification, timedelta(0), "late") is None


async def test_only_deliveries_that_did_not_arrive_are_sent_again(office: Office) -> None:
    job = await office.ended("a@example.com", "b@example.com", "c@example.com")
    notifications = {item.address: item for item in await outbox(office).claim(Channel.MAIL, 3)}
    await outbox(office).finish(notifications["a@example.com"], DeliveryStatus.SENT)
    await outbox(office).finish(notifications["b@example.com"], DeliveryStatus.AMBIGUOUS, "lost")
    await outbox(office).finish(notifications["c@example.com"], DeliveryStatus.FAILED, "550")
    assert await outbox(office).resend(job, "B@example.com") == ["b@example.com"]
    assert await outbox(office).resend(job) == ["c@example.com"]
    assert await outbox(office).resend(UUID(int=0)) == []
    assert {item.address for item in await outbox(office).claim(Channel.MAIL, 9)} == {
        "b@example.com",
        "c@example.com",
    }


@pytest.mark.parametrize("statement", [COUNT, LOST], ids=["count", "lost"])
async def test_no_statistic_reads_the_deliveries_that_were_sent(
    office: Office, statement: TextClause
) -> None:
    """The table has millions of rows that were sent, and each scrape of the metrics counts."""
    async with office.engine.begin() as connection:
        for setting in ("enable_seqscan", "enable_indexonlyscan"):  # an index of all rows is no better
            await connection.execute(text(f"SET LOCAL {setting} = off"))
        plan = await connection.scalar(text(f"EXPLAIN (FORMAT JSON) {statement}"))
    written = json.dumps(plan)
    assert "Seq Scan" not in written
    used = set(re.findall(r'"Index Name": "(\w+)"', written))
    assert "deliveries_lost" in used
    assert used <= {"deliveries_due", "deliveries_in_turn", "deliveries_sending", "deliveries_lost"}


async def test_deliveries_are_counted_by_their_state(office: Office) -> None:
    job = await office.ended(*(f"{name}@example.com" for name in "abcdef"))
    for name, change in {
        "a": "status = 'pending', created_at = now() - interval '1 hour'",
        "b": "status = 'sending', created_at = now() - interval '2 hours'",
        "c": "status = 'failed', finished_at = now() - interval '6 days'",
        "d": "status = 'failed', finished_at = now() - interval '8 days'",
        "e": "status = 'ambiguous', finished_at = now() - interval '9 days'",
        "f": "status = 'sent', finished_at = now()",
    }.items():
        await office.run(f"UPDATE deliveries SET {change} WHERE address = '{name}@example.com'")
    found = await count_deliveries(office.engine)
    assert (found.waiting, found.failed, found.ambiguous) == (2, 1, 1)
    assert 7_200 <= found.oldest_seconds < 7_300
    lost = await list_lost(office.engine)
    assert [(row["export_job_id"], row["status"]) for row in lost] == [(job, "failed"), (job, "ambiguous")]
    assert "address" not in lost[0]
    assert "id" not in lost[0]


async def test_no_delivery_is_a_count_of_zero(office: Office) -> None:
    assert await count_deliveries(office.engine) == DeliveryStatistics(0, 0.0, 0, 0)
    assert await list_lost(office.engine) == []
