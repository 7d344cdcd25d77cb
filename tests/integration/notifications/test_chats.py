"""Messages to Slack and Teams over real connections: posted once, and their URLs stay secret."""

import json
import logging
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from stream_app.chat_addresses import shown_address
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from stream_app.observability.logs import configure
from tests.integration.notifications.conftest import Office, failed
from tests.integration.notifications.servers import Receiver, mail_server, receiver, silent_server
from tests.waiting import patient

OPEN: dict[str, Any] = {
    "webhook_allow_private": True,
    "slack_allowed_hosts": "127.0.0.1,localhost",
    "teams_allowed_hosts": "127.0.0.1,localhost",
    "smtp_host": None,
}
SECRET_PART = "T000/B000/sEcReTsEcReT"


@pytest.fixture
def office(office: Office) -> Office:
    """Senders of messages to chats."""
    office.channels = (Channel.SLACK, Channel.TEAMS)
    return office


def chat(kind: str, hooks: Receiver | int, place: str = "") -> str:
    port = hooks if isinstance(hooks, int) else hooks.port
    return f"{kind}:http://127.0.0.1:{port}/services/{SECRET_PART}{place}"


def body(call: tuple[str, dict[str, str], bytes]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(call[2])
    return content


async def outcome(office: Office, answer: str, kind: str = "slack", **changes: Any) -> tuple[Any, int]:
    """Return the delivery after its first attempt, whose receiver gives ``answer``, and the calls."""
    async with receiver() as hooks, office.working(**OPEN | changes):
        hooks.answers = [answer]
        row = await office.tried(await office.ended(chat(kind, hooks)))
        return row, len(hooks.calls)


async def test_chats_and_mails_of_one_job_get_one_message_each(office: Office) -> None:
    office.channels = tuple(Channel)
    async with receiver() as hooks, mail_server() as post, office.working(2, **OPEN | own_server(post.port)):
        hooks.answers = ["200 OK\r\n\r\nok", "202 Accepted"]
        addresses = [chat("slack", hooks), chat("teams", hooks), "ops@example.com"]
        data = await office.job(*addresses, name="Proofs")
        await office.end(data, data)
        await office.settled(data.job_id)
        bad = await office.job(chat("slack", hooks))
        await office.end(failed(bad))
        await office.settled(bad.job_id)
    assert await office.statuses(data.job_id) == dict.fromkeys(addresses, "sent")
    assert [call[0] for call in hooks.calls] == [f"POST /services/{SECRET_PART} HTTP/1.1"] * 3
    assert all(call[1]["content-type"].startswith("application/json") for call in hooks.calls)
    first, second, third = map(body, hooks.calls)
    slack, teams = (first, second) if "blocks" in first else (second, first)
    assert "https://exports.example.com/exports/links/" in slack["text"]
    card = teams["attachments"][0]["content"]
    assert card["actions"][0]["url"].startswith("https://exports.example.com/exports/links/")
    assert card["actions"][0]["url"] not in slack["text"], "each delivery has a link of its own"
    assert "failed" in third["text"]
    assert "/exports/links/" not in json.dumps(third)
    assert SECRET_PART not in post.mails[0].as_string()


def own_server(port: int) -> dict[str, Any]:
    return {"smtp_host": "127.0.0.1", "smtp_port": port}


@pytest.mark.parametrize(
    ("kind", "answer", "status", "reason"),
    [
        ("slack", "404 Not Found\r\n\r\nno_service", "failed", "the chat answered 404 (no_service)"),
        ("slack", "302 Found\r\nLocation: http://127.0.0.1:1/", "failed", "the chat answered 302"),
        ("slack", "500 Oh\r\n\r\nrollup_error", "pending", "the chat answered 500 (rollup_error)"),
        ("teams", "200 OK\r\n\r\nmessage delivery failed with error: endpoint returned HTTP error 429 x",
         "pending", "Teams answered 429"),
        ("teams", '404 No\r\n\r\n{"error":{"code":"WorkflowNotFound"}}', "failed",
         "Teams answered 404 (WorkflowNotFound)"),
        ("slack", "502 Bad Gateway\r\n\r\n<html>", "ambiguous",
         "the chat answered 502; the message can have arrived"),
        ("slack", "silence", "ambiguous",
         "the receiver did not answer in time; the message can have arrived"),
        ("slack", "hang up", "ambiguous", "the receiver could not be reached; the message can have arrived"),
    ],
)  # fmt: skip
async def test_answers(office: Office, kind: str, answer: str, status: str, reason: str) -> None:
    # Only a receiver that never answers is waited for in vain; a busy machine can delay the others.
    limit = {"delivery_timeout_seconds": patient(0.5)} if answer == "silence" else {}
    office.channels = (Channel(kind),)
    row, calls = await outcome(office, answer, kind, **limit)
    assert (row.status, row.reason, row.attempts, calls) == (status, reason, 1, 1)
    assert row.channel == kind
    assert SECRET_PART not in row.reason


DATE = "\r\n".join(
    f"{name}: {format_datetime(at, usegmt=True)}"
    for name, at in (
        ("Date", datetime(2020, 1, 1, tzinfo=UTC)),
        ("Retry-After", datetime(2020, 1, 1, 0, 2, tzinfo=UTC)),
    )
)


@pytest.mark.parametrize(
    ("kind", "header", "seconds"),
    [("slack", "Retry-After: 120", 120), ("webhook", DATE, 120), ("slack", "Retry-After: soon", 0)],
    ids=["seconds", "date", "no number"],
)
async def test_the_receiver_says_when_to_call_again(
    office: Office, kind: str, header: str, seconds: int
) -> None:
    office.channels = (Channel(kind),)
    async with receiver() as hooks, office.working(**OPEN):
        hooks.answers = [f"429 Too Many Requests\r\n{header}"]
        if kind == "webhook":
            row = await office.tried(await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/"))
        else:
            row = await office.tried(await office.ended(chat(kind, hooks)))
    wait = (row.not_before - row.created_at).total_seconds()
    assert (seconds <= wait < seconds + 60) if seconds else wait < 60


async def test_a_chat_that_cannot_be_reached_is_called_again(office: Office) -> None:
    async with office.working(**OPEN):
        row = await office.tried(await office.ended(chat("slack", 1)))
        assert (row.status, row.reason) == ("pending", "the receiver could not be reached")
    (host,) = await office.hosts()
    assert host.host == "127.0.0.1:1"
    async with receiver() as hooks, office.working(**OPEN):
        await office.run(
            "UPDATE deliveries SET address = :address, host = 'other'", address=chat("slack", hooks)
        )
        await office.run("UPDATE deliveries SET not_before = now()")
        await office.settled(row.job_id)
    assert len(hooks.calls) == 1


async def test_a_handshake_that_gets_no_answer_posts_nothing(office: Office) -> None:
    """The time-out is over before the request was sent, so it can be sent again."""
    async with silent_server() as port, office.working(**OPEN, delivery_timeout_seconds=patient(0.3)):
        address = chat("slack", port).replace("http:", "https:")
        row = await office.tried(await office.ended(address))
    assert (row.status, row.reason) == ("pending", "the receiver did not answer in time")


async def test_certificates_are_verified(office: Office, tls: ssl.SSLContext) -> None:
    async with receiver(tls=tls) as hooks, office.working(**OPEN):
        good = await office.ended(f"teams:https://localhost:{hooks.port}/{SECRET_PART}")
        bad = await office.ended(f"teams:https://127.0.0.1:{hooks.port}/{SECRET_PART}")
        await office.settled(good)
        row = await office.tried(bad)
    assert (await office.rows(good))[0].status == "sent"
    assert (row.status, row.reason) == ("pending", "the receiver's certificate cannot be verified")
    assert len(hooks.calls) == 1


async def test_the_message_of_a_dead_worker_is_not_posted_again(office: Office) -> None:
    job = await office.ended("slack:https://hooks.slack.com/x", "teams:https://t.webhook.office.com/x")
    outbox = Outbox(office.engine, worker="dead", lease=timedelta(seconds=60))
    for channel in (Channel.SLACK, Channel.TEAMS):
        assert len(await outbox.claim(channel, 1)) == 1
    await office.run("UPDATE deliveries SET lease_until = now() - interval '1 second'")
    async with office.working(recovers=True, **OPEN):
        await office.settled(job)
    assert set((await office.statuses(job)).values()) == {"ambiguous"}


async def test_a_resend_takes_the_shown_address_and_shows_no_other(office: Office) -> None:
    first, second = "slack:https://hooks.slack.com/services/AAA", "slack:https://hooks.slack.com/services/aaa"
    job = await office.ended(first, second)
    await office.run("UPDATE deliveries SET status = 'failed'")
    outbox = Outbox(office.engine)
    assert await outbox.resend(job, shown_address(second)) == [shown_address(second)]
    assert await office.statuses(job) == {first: "failed", second: "pending"}
    assert await outbox.revoke(job, first) == [shown_address(first)]
    assert sorted(await outbox.resend(job)) == [shown_address(first)]


async def test_the_rules_are_checked_again_before_a_message_is_sent(office: Office) -> None:
    async with receiver() as hooks, office.working(**OPEN | {"slack_allowed_hosts": "hooks.slack.com"}):
        job = await office.ended(chat("slack", hooks), f"SLACK:{chat('x', hooks)[2:]}")
        await office.settled(job)
    rows = await office.rows(job)
    assert [row.status for row in rows] == ["skipped"] * 2
    assert all("slack messages to 127.0.0.1 are not allowed" in row.reason for row in rows)
    assert hooks.calls == []


async def test_chats_have_no_limit_of_mails_but_the_setting_about_empty_exports(office: Office) -> None:
    async with receiver() as hooks, office.working(**OPEN | {"mail_empty": False, "user_mail_limit": 1}):
        full = [await office.ended(chat("slack", hooks)) for _ in range(3)]
        empty = await office.job(chat("slack", hooks))
        empty = empty.model_copy(update={"row_count": 0})
        await office.end(empty)
        await office.settled(*full, empty.job_id)
    assert len(hooks.calls) == 3
    assert (await office.rows(empty.job_id))[0].status == "skipped"


async def test_the_url_of_a_chat_is_in_no_log_and_no_metric(
    office: Office, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    configure(office.settings.model_copy(update={"log_level": "DEBUG"}))
    root.handlers[:] = [caplog.handler]
    office.channels = (Channel.SLACK,)
    with capture_logs() as logs:
        async with receiver() as hooks, office.working(**OPEN, delivery_timeout_seconds=0.5):
            for answer in ("200 OK", "404 Not Found", "429 Too Many", "silence", "hang up"):
                hooks.answers = [answer]
                row = await office.tried(await office.ended(chat("slack", hooks)))
                assert [line for line in logs if line.get("job_id") == str(row.job_id)], answer
                await office.run("DELETE FROM receiver_hosts")  # the next message does not wait
    assert len(hooks.calls) >= 5
    for text in (repr(logs), caplog.text, generate_latest().decode()):
        assert SECRET_PART not in text
