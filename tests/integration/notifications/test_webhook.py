"""Webhooks over real connections: signed, retried with the same id, and never to private hosts."""

import base64
import socket
import ssl
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from stream_app.notifications import outbox as outbox_module
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.sender import SLOTS
from stream_app.notifications.webhook import receiver_key, secret_text
from streaming_exporter.events import decode
from tests.integration.notifications.conftest import SECRET, Office, failed
from tests.integration.notifications.servers import Receiver, receiver
from tests.waiting import WITHIN, patient, until_async

OPEN: dict[str, Any] = {"webhook_allow_private": True, "smtp_host": None}


@pytest.fixture
def office(office: Office) -> Office:
    """Senders of webhooks."""
    office.channels = (Channel.WEBHOOK,)
    return office


def verified(call: tuple[str, dict[str, str], bytes]) -> dict[str, Any]:
    """Return the body after the library of Standard Webhooks has verified it with the shared secret."""
    _, headers, body = call
    content: dict[str, Any] = Webhook(SECRET).verify(body.decode(), headers)
    return content


def accepts(secret: str, call: tuple[str, dict[str, str], bytes]) -> bool:
    """Return whether a receiver with ``secret`` accepts the signature of the call."""
    try:
        Webhook(secret).verify(call[2].decode(), call[1])
    except WebhookVerificationError:
        return False
    return True


def own_secret(master: str, user: str, url: str) -> str:
    return secret_text(receiver_key(base64.b64decode(master.removeprefix("whsec_")), user, url))


async def hurry(office: Office) -> None:
    await office.run("UPDATE deliveries SET not_before = now()")


async def test_a_webhook_has_the_outcome_of_the_job(office: Office) -> None:
    async with receiver() as hooks, office.working(2, **OPEN):
        url = f"http://127.0.0.1:{hooks.port}/exports?team=7"
        done = await office.ended(webhook=url)
        await office.settled(done)
        bad = await office.job(webhook=url)
        await office.end(failed(bad))
        await office.settled(bad.job_id)
    assert [call[0] for call in hooks.calls] == ["POST /exports?team=7 HTTP/1.1"] * 2
    first, second = map(verified, hooks.calls)
    assert (first["type"], first["data"]["job_id"]) == ("export.completed", str(done))
    assert first["data"]["download_url"].startswith("https://exports.example.com/exports/links/")
    assert (second["type"], second["data"]["error"]["code"]) == ("export.failed", "unknown_column")
    assert await office.statuses(done) == {url: "sent"}


async def test_an_invalid_trace_context_does_not_stop_a_webhook(office: Office) -> None:
    event = decode(
        b'{"specversion": "1.0", "id": "%s", "source": "/t", "type": "export.requested",'
        b'"traceparent": "\\u00e9", "data": {"user_id": "u", "export_type": "e", "format": "csv"}}'
        % str(uuid4()).encode()
    )
    async with receiver() as hooks, office.working(**OPEN):
        url = f"http://127.0.0.1:{hooks.port}/"
        job = await office.ended(webhook=url, traceparent=event.traceparent)
        await office.settled(job)
    assert await office.statuses(job) == {url: "sent"}
    (call,) = hooks.calls
    assert "traceparent" not in call[1]


@pytest.mark.parametrize(
    "answer", ["500 Oh No", "404 Not Found", "302 Found\r\nLocation: http://127.0.0.1:1/"]
)
async def test_every_response_but_2xx_is_retried_with_the_same_id(office: Office, answer: str) -> None:
    async with receiver() as hooks, office.working(**OPEN):
        hooks.answers = [answer, "200 OK"]
        url = f"http://127.0.0.1:{hooks.port}/"
        job = await office.ended(webhook=url)
        row = await office.tried(job)
        assert (row.status, row.reason) == ("pending", f"the receiver answered {answer[:3]}")
        await hurry(office)
        await office.settled(job)
    assert await office.statuses(job) == {url: "sent"}
    assert len(hooks.calls) == 2, "no redirect was followed"
    assert [verified(call) for call in hooks.calls]
    assert len({call[1]["webhook-id"] for call in hooks.calls}) == 1


async def test_a_receiver_that_answers_410_gets_no_more_calls(office: Office) -> None:
    async with receiver() as hooks, office.working(**OPEN):
        hooks.answers = ["410 Gone"]
        job = await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/")
        await office.settled(job)
    (row,) = await office.rows(job)
    assert (row.status, row.attempts) == ("failed", 1)
    assert "410" in row.reason


async def test_a_slow_or_unreachable_receiver_is_retried(office: Office) -> None:
    async with receiver() as hooks, office.working(**OPEN, delivery_timeout_seconds=patient(0.3)):
        hooks.answers = ["silence"]
        slow = await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/")
        assert (await office.tried(slow)).reason == "the receiver did not answer in time"
    async with office.working(**OPEN):
        away = await office.ended(webhook="http://127.0.0.1:1/")
        assert (await office.tried(away)).reason == "the receiver could not be reached"


class Names:
    """Successive answers of the resolver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.answers = list(answers)
        real = socket.getaddrinfo

        def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            if host != "hooks.example.com":
                return real(host, port, *arguments, **options)
            address = self.answers.pop(0)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_to_a_private_address_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    Names(monkeypatch, address)
    async with receiver() as hooks, office.working(smtp_host=None):
        job = await office.ended(webhook=f"https://hooks.example.com:{hooks.port}/")
        row = await office.tried(job)
        unknown = await office.tried(await office.ended(webhook="https://there-is-no-such-name.invalid/"))
    # S18: the user must not learn whether an internal name exists, and its addresses.
    assert (row.status, row.reason) == ("pending", "the receiver is not a public host")
    assert (unknown.status, unknown.reason) == (row.status, row.reason)
    assert hooks.calls == []


async def test_the_address_that_was_checked_is_the_one_that_is_called(
    office: Office, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    """The name resolves to another address when the connection is made. TLS still checks the name."""
    names = Names(monkeypatch, "127.0.0.1", "192.0.2.1")
    async with receiver(tls=tls) as hooks, office.working(**OPEN):
        job = await office.ended(webhook=f"https://hooks.example.com:{hooks.port}/x")
        await office.settled(job)
    assert names.answers == ["192.0.2.1"], "it was asked for once"
    (call,) = hooks.calls
    assert call[1]["host"] == f"hooks.example.com:{hooks.port}"
    assert verified(call)["data"]["job_id"] == str(job)


async def test_a_certificate_for_another_name_is_refused(office: Office, tls: ssl.SSLContext) -> None:
    async with receiver(tls=tls) as hooks, office.working(**OPEN):
        job = await office.ended(webhook=f"https://127.0.0.1:{hooks.port}/x")
        assert (await office.tried(job)).reason == "the receiver's certificate cannot be verified"
    assert hooks.calls == []


async def test_without_a_secret_no_webhook_is_sent(office: Office) -> None:
    hooks: Receiver
    async with receiver() as hooks, office.working(**OPEN, webhook_secret=None):
        job = await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/")
        await office.settled(job)
    (row,) = await office.rows(job)
    assert row.status == "skipped"
    assert "EXPORTER_WEBHOOK_SECRET" in row.reason
    assert hooks.calls == []


NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()


@pytest.mark.parametrize("shared", [True, False])
async def test_during_a_change_of_the_secret_both_are_accepted(office: Office, shared: bool) -> None:
    """S13: receivers verify with their own secret, the previous or the new one, and with no other secret."""
    changes: dict[str, Any] = {
        "webhook_secret": NEW,
        "webhook_previous_secret": SECRET,
        "webhook_shared_signature": shared,
    }
    async with receiver() as hooks, office.working(**OPEN, **changes):
        url = f"http://127.0.0.1:{hooks.port}/hook?job=1"
        await office.settled(await office.ended(webhook=url, user_id="ada"))
    (call,) = hooks.calls
    assert accepts(own_secret(NEW, "ada", url), call)
    assert accepts(own_secret(SECRET, "ada", url), call)
    assert not accepts(own_secret(NEW, "eve", url), call)
    assert not accepts(own_secret(NEW, "ada", url.replace("/hook", "/other")), call)
    assert [accepts(NEW, call), accepts(SECRET, call)] == [shared, shared]


async def test_a_host_that_does_not_answer_delays_no_other_host(office: Office) -> None:
    """S9: more jobs than slots for a host that never answers; another user's webhook does not wait."""
    never = 10 * patient(WITHIN)  # no call times out during the test
    async with (
        receiver() as dead,
        receiver() as alive,
        office.working(**OPEN, delivery_timeout_seconds=never),
    ):
        dead.answers = ["silence"]
        url = f"http://127.0.0.1:{dead.port}/"
        jobs = [
            await office.job(webhook=f"{url}{n}", user_id="eve") for n in range(SLOTS[Channel.WEBHOOK] + 4)
        ]
        await office.end(*jobs)
        await until_async(lambda: dead.calls)
        job = await office.ended(webhook=f"http://127.0.0.1:{alive.port}/", user_id="ada")
        await office.settled(job)
        dead.hang_up()
        await office.first_of("eve", attempts=1)
        assert len(dead.calls) <= 8
        (host,) = await office.hosts()
        assert (host.host, host.failures) == (f"127.0.0.1:{dead.port}", 1)


async def test_users_take_turns(office: Office) -> None:
    """S9: a thousand deliveries of one user do not delay those of another, over any channel."""
    jobs = [
        await office.job(
            f"eve{number}@example.com",
            f"slack:https://hooks.slack.com/services/e{number}",
            f"teams:https://eve.webhook.office.com/{number}",
            user_id="eve",
            webhook=f"https://e{number}.example.com/",
            destination="acme",
        )
        for number in range(12)
    ]
    await office.end(*jobs)
    chats = ("slack:https://hooks.slack.com/services/a", "teams:https://ada.webhook.office.com/")
    webhook = "https://ada.example.com/"
    await office.ended("ada@example.com", *chats, user_id="ada", webhook=webhook, destination="acme")
    outbox = Outbox(office.engine, worker="w", lease=timedelta(seconds=60))
    for channel in Channel:
        taken = await outbox.claim(channel, 5, user_slots=4, host_slots=1_000)
        assert sorted(notification.user_id for notification in taken) == ["ada", "eve", "eve", "eve", "eve"]
        assert await outbox.claim(channel, 5, user_slots=4, host_slots=1_000) == []


async def test_a_host_gets_a_limited_number_of_calls_at_a_time(office: Office) -> None:
    for number in range(6):
        await office.ended(webhook="https://one.example.com/x", user_id=f"user-{number}")
    outbox = Outbox(office.engine, worker="w", lease=timedelta(seconds=60))
    assert len(await outbox.claim(Channel.WEBHOOK, 10, user_slots=4, host_slots=4)) == 4
    await outbox.host_unreachable("one.example.com", timedelta(seconds=60), timedelta(seconds=60))
    await office.run("UPDATE deliveries SET lease_until = now() - interval '1 second'")
    await outbox.recover_expired()
    assert await outbox.claim(Channel.WEBHOOK, 10, user_slots=4, host_slots=4) == []
    await outbox.host_answered("one.example.com")
    assert len(await outbox.claim(Channel.WEBHOOK, 10, user_slots=4, host_slots=4)) == 4


async def test_the_back_off_of_a_host_grows(office: Office) -> None:
    outbox = Outbox(office.engine, worker="w", lease=timedelta(seconds=60))
    pauses = []
    for _ in range(4):
        for _ in range(3):  # several deliveries that fail at the same time count as one failure
            await outbox.host_unreachable("h", timedelta(seconds=10), timedelta(seconds=60))
        (host,) = await office.hosts()
        pauses.append(round(host.seconds, -1))
        await office.run("UPDATE receiver_hosts SET not_before = now()")
    assert pauses == [10, 20, 40, 60]


async def test_a_claim_reads_a_limited_number_of_users_and_all_have_turns(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim costs the same for any number of users, and each user has a turn."""
    monkeypatch.setattr(outbox_module, "WINDOW", 3)
    for number in range(10):
        await office.ended(webhook="https://one.example.com/x", user_id=f"user-{number}")
    await office.run("UPDATE deliveries SET not_before = now() + interval '1 hour' WHERE user_id < 'user-8'")
    outbox = Outbox(office.engine, worker="w", lease=timedelta(seconds=60))
    taken = [item.user_id for item in await outbox.claim(Channel.WEBHOOK, 10, host_slots=10)]
    assert sorted(taken) == ["user-8", "user-9"], "what is due for longest is found at once"
    await office.run("UPDATE deliveries SET not_before = now() WHERE user_id = 'user-7'")
    away = "UPDATE deliveries SET not_before = now() - interval '1 minute', user_id = 'a', host = 'h'"
    await office.run(f"{away} WHERE user_id < 'user-4'")
    await outbox.host_unreachable("h", timedelta(minutes=5), timedelta(minutes=5))
    found = [
        item.user_id for _ in range(4) for item in await outbox.claim(Channel.WEBHOOK, 10, host_slots=10)
    ]
    assert found == ["user-7"]
