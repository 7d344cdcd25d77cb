"""Webhooks over real connections: signed, repeated under the same id, and never to private hosts."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
from typing import Any
from uuid import uuid4

import pytest

from stream_app.events import decode
from tests.integration.delivery.conftest import SECRET, Office, failed
from tests.integration.delivery.servers import Receiver, receiver

OPEN: dict[str, Any] = {"webhook_allow_private": True, "smtp_host": None}


def verified(call: tuple[str, dict[str, str], bytes]) -> dict[str, Any]:
    """The body, after the checks that the specification asks receivers for."""
    _, headers, body = call
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    content: dict[str, Any] = json.loads(body)
    return content


async def hurry(office: Office) -> None:
    await office.run("UPDATE deliveries SET not_before = now()")


async def test_a_webhook_tells_how_the_job_ended(office: Office) -> None:
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


async def test_a_trace_context_that_no_header_can_hold_keeps_no_webhook_back(office: Office) -> None:
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
async def test_whatever_is_not_2xx_is_tried_again_under_the_same_id(office: Office, answer: str) -> None:
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


async def test_a_receiver_that_is_gone_is_left_alone(office: Office) -> None:
    async with receiver() as hooks, office.working(**OPEN):
        hooks.answers = ["410 Gone"]
        job = await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/")
        await office.settled(job)
    (row,) = await office.rows(job)
    assert (row.status, row.attempts) == ("failed", 1)
    assert "410" in row.reason


async def test_a_receiver_that_is_slow_or_away_is_tried_again(office: Office) -> None:
    async with receiver() as hooks, office.working(**OPEN, delivery_timeout_seconds=0.3):
        hooks.answers = ["silence"]
        slow = await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/")
        assert "Timeout" in (await office.tried(slow)).reason
        away = await office.ended(webhook="http://127.0.0.1:1/")
        assert "ConnectError" in (await office.tried(away)).reason


class Names:
    """Answers for the resolver, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.answers = list(answers)
        real = asyncio.BaseEventLoop.getaddrinfo

        async def resolve(loop: Any, host: Any, port: Any, **options: Any) -> Any:
            if host != "hooks.example.com":
                return await real(loop, host, port, **options)
            address = self.answers.pop(0)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_to_a_private_address_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    Names(monkeypatch, address)
    async with receiver() as hooks, office.working(smtp_host=None):
        job = await office.ended(webhook=f"https://hooks.example.com:{hooks.port}/")
        await office.settled(job)
    (row,) = await office.rows(job)
    assert (row.status, row.reason) == (
        "failed",
        f"hooks.example.com leads to {address}, which is not a public address",
    )
    assert hooks.calls == []


async def test_the_address_that_was_checked_is_the_one_that_is_called(
    office: Office, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    """The name has another address by the time that the connection is made; TLS is still for the name."""
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
        assert "CERTIFICATE_VERIFY_FAILED" in (await office.tried(job)).reason
    assert hooks.calls == []


async def test_without_a_secret_none_is_sent(office: Office) -> None:
    hooks: Receiver
    async with receiver() as hooks, office.working(**OPEN, webhook_secret=None):
        job = await office.ended(webhook=f"http://127.0.0.1:{hooks.port}/")
        await office.settled(job)
    (row,) = await office.rows(job)
    assert row.status == "skipped"
    assert "EXPORTER_WEBHOOK_SECRET" in row.reason
    assert hooks.calls == []
