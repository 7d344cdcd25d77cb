"""Mails over a real connection: each is sent once, and each reply of the server is handled."""

import asyncio
import io
import re
import ssl
from email.message import EmailMessage
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest

from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from stream_app.storage.object_store import ObjectStore
from tests.integration.notifications.conftest import Office, failed
from tests.integration.notifications.servers import mail_server, silent_server
from tests.waiting import patient


@pytest.fixture
def office(office: Office) -> Office:
    """Senders of mails."""
    office.channels = (Channel.MAIL,)
    return office


async def test_each_recipient_gets_one_mail_from_several_senders(office: Office) -> None:
    jobs = [await office.job(f"a{number}@example.com", f"b{number}@example.com") for number in range(15)]
    await office.end(*jobs)
    async with mail_server() as server, office.working(3, smtp_port=server.port):
        await office.settled(*(job.job_id for job in jobs))
    assert sorted(mail["X-Envelope-To"] for mail in server.mails) == sorted(
        f"{name}{number}@example.com" for number in range(15) for name in "ab"
    )
    assert {row.status for row in await office.rows()} == {"sent"}
    identities = {mail["Message-ID"] for mail in server.mails}
    assert identities == {f"<{row.id}@localhost>" for row in await office.rows()}
    assert server.connections < 30, "connections are used for several mails"


async def test_a_mail_states_the_outcome_of_the_job(office: Office) -> None:
    bad = await office.job("a@example.com")
    await office.end(failed(bad, "a file has at most <b>5</b> rows", code="too_many_rows"))
    async with mail_server() as server, office.working(smtp_port=server.port, mail_from="X <x@example.com>"):
        await office.settled(bad.job_id)
    (mail,) = server.to("a@example.com")
    assert re.fullmatch(r"Export of ledger, \d+ \w+ \d{4}: failed", mail["Subject"])
    assert mail["From"] == "X <x@example.com>"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "at most <b>5</b> rows" in text.get_content()
    assert "at most &lt;b&gt;5&lt;/b&gt; rows" in html.get_content()


async def test_a_refused_request_is_mailed_to_its_valid_addresses(office: Office) -> None:
    """The addresses of such a request were never changed to their ASCII form."""
    bad = await office.job("nobody", "Ops@BÜCHER.de")
    await office.end(failed(bad, "recipients.0: 'nobody' is not a valid mail address"))
    async with mail_server() as server, office.working(smtp_port=server.port):
        await office.settled(bad.job_id)
    assert await office.statuses(bad.job_id) == {"nobody": "skipped", "Ops@BÜCHER.de": "sent"}
    (mail,) = server.mails
    assert mail["X-Envelope-To"] == mail["To"] == "Ops@xn--bcher-kva.de"


async def test_an_outage_delays_mails_and_loses_none(office: Office) -> None:
    async with mail_server() as gone:
        port = gone.port
    job = await office.ended("a@example.com")
    async with office.working(smtp_port=port):
        row = await office.tried(job)
        assert (row.status, row.attempts) == ("pending", 1)
        assert row.reason == "the mail server cannot be reached"
        async with mail_server(port=port) as server:
            await office.run("UPDATE deliveries SET not_before = now()")
            await office.settled(job)
    assert len(server.mails) == 1
    assert await office.statuses(job) == {"a@example.com": "sent"}


async def test_an_address_that_does_not_exist_is_tried_only_once(office: Office) -> None:
    first = await office.ended("Gone@example.com", "here@example.com")
    async with mail_server() as server, office.working(smtp_port=server.port):
        server.refused["Gone@example.com"] = "550 5.1.1 no such user"
        await office.settled(first)
        second = await office.ended("gone@example.com", "here@example.com")
        await office.settled(second)
        assert server.seen.count("Gone@example.com") == 1
        assert "gone@example.com" not in server.seen
        assert await office.statuses(first) == {"Gone@example.com": "failed", "here@example.com": "sent"}
        assert await office.statuses(second) == {"gone@example.com": "skipped", "here@example.com": "sent"}
        reasons = {row.job_id: row.reason for row in await office.rows() if row.status != "sent"}
        assert reasons[first] == "550 5.1.1 no such user"
        assert reasons[second] == "the mail server has refused this address before: 550 5.1.1 no such user"

        await Outbox(office.engine).resend(second, "gone@example.com")
        await office.settled(second)
        assert len(server.to("gone@example.com")) == 1


@pytest.mark.parametrize(
    ("place", "answer", "status"),
    [
        ("a@example.com", "450 4.2.1 try later", "pending"),
        ("a@example.com", "550 5.7.1 relaying denied", "failed"),
        ("a@example.com", "550 relay not permitted", "failed"),
        ("a@example.com", "552 5.2.2 mailbox full", "failed"),
        ("data", "451 4.3.0 try later", "pending"),
        ("data", "554 5.6.0 not this", "failed"),
    ],
)
async def test_other_refusals_do_not_suppress_the_address(
    office: Office, place: str, answer: str, status: str
) -> None:
    job = await office.ended("a@example.com")
    async with mail_server() as server, office.working(smtp_port=server.port):
        server.refused[place] = answer
        row = await office.tried(job)
        assert (row.status, row.reason) == (status, answer)
        server.refused.clear()
        other = await office.ended("a@example.com")
        await office.settled(other)
    assert await office.statuses(other) == {"a@example.com": "sent"}


async def test_a_connection_that_is_lost_after_the_data_leaves_the_mail_ambiguous(
    office: Office,
) -> None:
    job = await office.ended("a@example.com")
    async with mail_server() as server, office.working(smtp_port=server.port):
        server.hangs_up_after = "data"
        await office.settled(job)
        server.hangs_up_after = None
        await asyncio.sleep(0.3)
        assert len(server.mails) == 1
        (row,) = await office.rows(job)
        assert row.status == "ambiguous"
        assert row.reason == "the connection to the mail server was lost; the mail can have arrived"
        assert await Outbox(office.engine).resend(job) == ["a@example.com"]
        await office.settled(job)
        assert len(server.mails) == 2
        assert server.mails[0]["Message-ID"] == server.mails[1]["Message-ID"]


async def test_a_silent_server_runs_into_the_time_out(office: Office) -> None:
    job = await office.ended("a@example.com")
    async with silent_server() as port, office.working(smtp_port=port, delivery_timeout_seconds=patient(0.3)):
        row = await office.tried(job)
    assert row.status == "pending"
    assert row.reason == "the mail server did not answer in time"


async def test_an_unsubscribed_address_gets_no_more_mails_of_that_schedule(office: Office) -> None:
    one, two = uuid4(), uuid4()
    await Outbox(office.engine).unsubscribe("A@example.com", f"schedule:{one}")
    jobs = {
        "this schedule": await office.ended("a@example.com", schedule_id=one),
        "another": await office.ended("a@example.com", schedule_id=two),
        "none": await office.ended("a@example.com"),
        "another recipient": await office.ended("b@example.com", schedule_id=one),
    }
    async with mail_server() as server, office.working(smtp_port=server.port):
        await office.settled(*jobs.values())
    assert {name: list((await office.statuses(job)).values()) for name, job in jobs.items()} == {
        "this schedule": ["skipped"],
        "another": ["sent"],
        "none": ["sent"],
        "another recipient": ["sent"],
    }


async def test_a_skipped_delivery_has_its_reason(office: Office) -> None:
    reasons = {}
    no_server = await office.ended("a@example.com")
    async with office.working(smtp_host=None):
        await office.settled(no_server)
    empty = await office.job("a@example.com")
    await office.end(empty.model_copy(update={"row_count": 0}))
    gone = await office.job("a@example.com")
    await office.end(gone.model_copy(update={"expires_at": gone.completed_at}))
    refused = await office.ended("a@example.com\r\nBcc: x@example.com")
    elsewhere = await office.ended("a@other.org")
    async with (
        mail_server() as server,
        office.working(smtp_port=server.port, mail_empty=False, mail_allowed_domains="example.com"),
    ):
        await office.settled(empty.job_id, gone.job_id, refused, elsewhere)
    for job in (no_server, empty.job_id, gone.job_id, refused, elsewhere):
        (row,) = await office.rows(job)
        assert row.status == "skipped"
        reasons[job] = row.reason
    assert server.connections == 0
    assert "EXPORTER_SMTP_HOST" in reasons[no_server]
    assert "EXPORTER_MAIL_EMPTY" in reasons[empty.job_id]
    assert reasons[gone.job_id] == "the file has expired"
    assert "is not a valid mail address" in reasons[refused]
    assert "mails to other.org are not allowed" in reasons[elsewhere]


async def test_small_files_are_attached_if_the_setting_allows_it(
    office: Office, storage: ObjectStore
) -> None:
    content = b"id,kind\n" + b"1,proof\n" * 20
    jobs = []
    for size in (len(content), 10_000):
        data = await office.job("a@example.com")
        assert data.key is not None
        storage._client.put_object(storage.bucket, data.key, io.BytesIO(content), len(content))
        await office.end(data.model_copy(update={"file_size": size, "sha256": sha256(content).hexdigest()}))
        jobs.append(data.job_id)
    async with mail_server() as server, office.working(smtp_port=server.port, mail_attach_max_bytes=1_000):
        await office.settled(*jobs)
    attached = [part for mail in server.mails for part in mail.iter_attachments()]
    assert len(server.mails) == 2
    assert [(part.get_filename(), part.get_payload(decode=True)) for part in attached] == [
        ("outbox.csv", content)
    ]


@pytest.mark.parametrize(
    "answer", ["552 5.3.4 message too big", "552 too big", "523 5.2.3 too long", "554 5.7.1 no such files"]
)
async def test_a_mail_whose_file_the_server_refuses_is_sent_without_it(
    office: Office, storage: ObjectStore, answer: str
) -> None:
    job = await with_file(office, storage, 40_000)
    async with mail_server() as server, office.working(smtp_port=server.port, mail_attach_max_bytes=50_000):
        server.largest, server.too_large = 40_000, answer
        await office.settled(job)
    assert [size > 40_000 for size in server.sizes] == [True, False]
    check_link_only(server.mails)
    (row,) = await office.rows(job)
    assert (row.status, row.attempts, row.reason) == ("sent", 1, None)


async def test_a_file_that_is_too_large_for_the_server_as_an_attachment_is_not_sent_to_it(
    office: Office, storage: ObjectStore
) -> None:
    """A file has a third more bytes in a mail, and the server says how many it takes."""
    job = await with_file(office, storage, 40_000)
    async with (
        mail_server(size=45_000) as server,
        office.working(smtp_port=server.port, mail_attach_max_bytes=50_000),
    ):
        await office.settled(job)
    assert [size < 45_000 for size in server.sizes] == [True]
    check_link_only(server.mails)
    assert await office.statuses(job) == {"a@example.com": "sent"}


async def test_a_server_that_does_not_forget_a_mail_gets_the_one_without_the_file_over_another_connection(
    office: Office, storage: ObjectStore
) -> None:
    job = await with_file(office, storage, 40_000)
    async with (
        mail_server(size=45_000) as server,
        office.working(smtp_port=server.port, mail_attach_max_bytes=50_000),
    ):
        server.refused["rset"] = "502 5.5.1 not here"
        await office.settled(job)
    check_link_only(server.mails)
    (row,) = await office.rows(job)
    assert (row.status, row.attempts, server.connections) == ("sent", 1, 2)


async def test_a_mail_that_the_server_refuses_without_its_file_too_has_failed(
    office: Office, storage: ObjectStore
) -> None:
    job = await with_file(office, storage, 40_000)
    async with mail_server() as server, office.working(smtp_port=server.port, mail_attach_max_bytes=50_000):
        server.largest, server.too_large = 0, "554 5.6.0 not this"
        await office.settled(job)
    assert len(server.sizes) == 2
    (row,) = await office.rows(job)
    assert (row.status, row.attempts, row.reason) == ("failed", 1, "554 5.6.0 not this")


async def with_file(office: Office, storage: ObjectStore, size: int) -> UUID:
    """Complete a job with a file of ``size`` bytes; return its id."""
    data = await office.job("a@example.com")
    assert data.key is not None
    content = b"x" * size
    storage._client.put_object(storage.bucket, data.key, io.BytesIO(content), size)
    await office.end(data.model_copy(update={"file_size": size, "sha256": sha256(content).hexdigest()}))
    return data.job_id


def check_link_only(mails: list[EmailMessage]) -> None:
    (mail,) = mails
    assert list(mail.iter_attachments()) == []
    body = mail.get_body(("plain",))
    assert body is not None
    assert "/exports/links/" in body.get_content()
    assert "is attached" not in body.get_content()


async def test_starttls_and_login(office: Office, tls: ssl.SSLContext) -> None:
    job = await office.ended("a@example.com")
    account: dict[str, Any] = {"smtp_host": "localhost", "smtp_starttls": True, "smtp_username": "exporter"}
    async with mail_server(tls=tls, login=True) as server:
        async with office.working(smtp_port=server.port, **account, smtp_password="wrong"):
            row = await office.tried(job)
            assert (row.status, row.reason) == (
                "pending", "the mail server does not take mails of the service at the moment",
            )  # fmt: skip
        async with office.working(smtp_port=server.port, **account, smtp_password="right"):
            await office.run("UPDATE deliveries SET not_before = now()")
            await office.settled(job)
    assert len(server.mails) == 1
    assert server.logins
