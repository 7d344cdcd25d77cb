"""What was claimed and never begun is sent: the answer was lost, the worker stopped, or a client crashed."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from stream_app.composition.sender import create_sender
from stream_app.db.engine import create_engine
from stream_app.notifications import outbox_sql
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.webhook import WebhookClient
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Retryable
from tests.integration.notifications.conftest import Office
from tests.integration.notifications.servers import mail_server, receiver
from tests.store_proxy import Proxy
from tests.tcp_proxy import proxied
from tests.waiting import patient, until_async

WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'deliveries'::regclass AND NOT granted"
WAITING_FOR_ROW = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"


@pytest.mark.parametrize("is_settled", [False, True], ids=["at once", "after another worker has settled it"])
async def test_what_a_claim_has_taken_whose_answer_was_lost_is_claimed_again(
    office: Office, is_settled: bool
) -> None:
    job = await office.ended("a@example.com")
    url = office.settings.database_url.get_secret_value()
    async with proxied(url) as (proxy, through):
        settings = Settings(_env_file=None, **office.settings.model_dump() | {"database_url": through})
        engine = create_engine(settings, application="lossy", command_timeout=None)
        outbox = Outbox(engine, worker="w", lease=timedelta(seconds=0 if is_settled else 60))
        try:
            assert await outbox.claim(Channel.WEBHOOK, 1) == []
            proxy.loses_answers = True
            claim = asyncio.create_task(outbox.claim(Channel.MAIL, 1))

            async def is_claimed() -> bool:
                return await office.statuses(job) == {"a@example.com": "sending"}

            await until_async(is_claimed)
            await proxy.drop()
            with pytest.raises(Retryable):
                await claim
            proxy.loses_answers = False
            if is_settled:
                await Outbox(office.engine).recover_expired()
                assert await office.statuses(job) == {"a@example.com": "ambiguous"}
            (again,) = await outbox.claim(Channel.MAIL, 1)
        finally:
            await engine.dispose()
    assert (again.job_id, again.attempt) == (job, 2)
    (row,) = await office.rows(job)
    assert (row.status, row.finished_at) == ("sending", None)


async def test_a_lost_claim_of_a_process_does_not_touch_what_the_one_before_has_sent(office: Office) -> None:
    """In a container, the next process has the same name: its host, and the number 1."""
    job = await office.ended("a@example.com")
    before, after = (Outbox(office.engine, worker="pod-1", lease=timedelta(seconds=60)) for _ in range(2))
    (mail,) = await before.claim(Channel.MAIL, 1)
    after._unstarted = {next(after._claims): 0.0 for _ in range(3)}
    assert await after.claim(Channel.MAIL, 1) == []
    assert await office.statuses(job) == {"a@example.com": "sending"}
    assert mail.attempt == 1


async def stop_while_it_claims(office: Office, stopping: Callable[[], None] = lambda: None) -> None:
    """Stop a sender of mails whose claim waits for a lock until then; it must send none.

    Args:
        office: the jobs and their deliveries.
        stopping: called just before the sender stops.
    """
    async with mail_server() as server:
        settings = Settings(_env_file=None, **office.settings.model_dump() | {"smtp_port": server.port})
        sender = create_sender(settings, office.engine, office.storage, "w", poll=0.05)
        async with office.engine.begin() as blocking:
            await blocking.execute(text("LOCK TABLE deliveries"))
            running = asyncio.create_task(sender.run(Channel.MAIL))

            async def is_claiming() -> bool:
                async with office.engine.connect() as connection:
                    return bool(await connection.scalar(text(WAITING)))

            await until_async(is_claiming)
            stopping()
            draining = asyncio.create_task(sender.drain())
            await asyncio.sleep(0.1)
            assert not draining.done(), "the claim is still running"
        await draining
        await running
        assert server.mails == []


async def test_what_is_claimed_while_the_worker_stops_is_due_again(office: Office) -> None:
    job = await office.ended("a@example.com")
    await stop_while_it_claims(office)
    (row,) = await office.rows(job)
    assert (row.status, row.attempts, row.reason) == ("pending", 1, None)


async def test_an_outage_while_the_worker_stops_does_not_lose_what_it_has_claimed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempts to return what was claimed fail, as they do during a failover."""
    jobs = [await office.ended(f"{name}@example.com") for name in "ab"]
    outages = [Retryable("the state database is away")] * 2
    execute = Outbox._execute

    async def failing(outbox: Outbox, statement: Any, **values: Any) -> Any:
        if outages and statement is not outbox_sql.RECOVER_EXPIRED:
            raise outages.pop()
        return await execute(outbox, statement, **values)

    await stop_while_it_claims(office, lambda: monkeypatch.setattr(Outbox, "_execute", failing))
    assert outages == []
    assert [row.status for job in jobs for row in await office.rows(job)] == ["pending", "pending"]


async def test_a_claim_of_another_worker_is_not_returned(office: Office) -> None:
    """What is due again can be claimed by another worker, while the statement waits for its row."""
    job = await office.ended("a@example.com")
    before, after = (Outbox(office.engine, worker=name, lease=timedelta(seconds=60)) for name in "vw")
    (mail,) = await before.claim(Channel.MAIL, 1)
    before.note_unstarted(Channel.MAIL)
    async with office.engine.begin() as changing:
        await changing.execute(text("UPDATE deliveries SET worker = 'w/1/1'"))
        returning = asyncio.create_task(before.release_unstarted())

        async def is_waiting() -> bool:
            async with office.engine.connect() as connection:
                return bool(await connection.scalar(text(WAITING_FOR_ROW)))

        await until_async(is_waiting)
    await returning
    assert await office.statuses(job) == {"a@example.com": "sending"}
    assert await after.claim(Channel.MAIL, 1) == []
    assert mail.attempt == 1


async def test_a_webhook_whose_client_crashes_is_sent_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, crashes = WebhookClient.payload, [KeyError("x")]

    def crash(client: WebhookClient, notification: Any) -> dict[str, Any]:
        if crashes:
            raise crashes.pop()
        return payload(client, notification)

    monkeypatch.setattr(WebhookClient, "payload", crash)
    office.channels = (Channel.WEBHOOK,)
    async with receiver() as hooks, office.working(webhook_allow_private=True, smtp_host=None):
        url = f"http://127.0.0.1:{hooks.port}/"
        job = await office.ended(webhook=url)
        row = await office.tried(job)
        assert (row.status, row.reason) == (
            "pending", "an internal error; the log of the service has the details",
        )  # fmt: skip
        await office.run("UPDATE deliveries SET not_before = now()")
        await office.settled(job)
    assert await office.statuses(job) == {url: "sent"}
    assert len(hooks.calls) == 1


@pytest.mark.parametrize("stops", [True, False], ids=["the worker stops", "the time is over"])
async def test_a_mail_that_waits_for_its_file_is_sent_later(office: Office, stops: bool) -> None:
    """It is certain that nothing was sent: neither its claim nor the worker ends while it is not known."""
    job = await office.ended("a@example.com")
    with ExitStack() as ends:
        store = ends.enter_context(Proxy(office.settings.s3_endpoint))
        threading.Thread(target=store.serve_forever, daemon=True).start()
        ends.callback(store.shutdown)
        store.status, store.code = 503, "SlowDown"
        limit = patient(60) if stops else 0.5
        changes = {"mail_attach_max_bytes": 1_000, "delivery_timeout_seconds": limit}
        endpoint = f"http://127.0.0.1:{store.server_port}"
        behind = ObjectStore(office.settings.model_copy(update={"s3_endpoint": endpoint}))
        ends.callback(behind.close)
        async with mail_server() as server:
            known = office.settings.model_dump() | {"smtp_port": server.port, **changes}
            settings = Settings(_env_file=None, **known)
            sender = create_sender(settings, office.engine, behind, "w", poll=0.05)
            running = asyncio.create_task(sender.run(Channel.MAIL))

            async def is_reading() -> bool:
                return store.refused > 0

            await until_async(is_reading)
            if not stops:
                await office.tried(job)
            began = time.monotonic()
            await sender.drain()
            await running
            assert time.monotonic() - began < patient(30)
            assert server.mails == []
    (row,) = await office.rows(job)
    assert (row.status, row.reason) == (
        "pending",
        "the worker was stopped before the mail was sent"
        if stops
        else "the file to attach cannot be read at the moment",
    )
