"""``exporter dead-letters`` on a real broker: dead letters are listed, shown and published again."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import uuid4

import pytest
from faust.types import EventT
from faust.types.tuples import ConsumerMessage
from typer.testing import CliRunner

from dev.stack import Stack
from producers.__main__ import cli
from stream_app.composition.worker import create_app
from stream_app.kafka.event_producer import EventProducer
from stream_app.settings import Settings
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import ExportRequest, Topic, request_event
from streaming_exporter.kafka_connection import ensure_topics
from tests.topics import messages_on

PREFIX = f"letters-{uuid4().hex[:8]}."


class Letters:
    """Dead-letters messages as a worker does, and runs the command."""

    def __init__(self, stack: Stack, settings: Settings, producer: EventProducer) -> None:
        self.stack = stack
        self.settings = settings
        self.producer = producer

    async def put_aside(self, value: bytes, reason: str, topic: str = Topic.REQUESTS, **given: Any) -> None:
        name = topic if given.get("foreign") else self.settings.topic(topic)
        message = ConsumerMessage(
            name, 3, 17, 0.0, 1, given.get("headers", []), given.get("key"), value, None, generation_id=1
        )
        event = type("Received", (), {"message": message})()
        await self.producer.dead_letter(cast(EventT[bytes], event), Unreadable(reason))

    async def run(self, *arguments: str, code: int = 0) -> str:
        env = {**self.stack.environment(), "EXPORTER_KAFKA_TOPIC_PREFIX": PREFIX}
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["dead-letters", *arguments], env=env)
        assert done.exit_code == code, done.output
        return done.stdout

    async def told(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (await self.run(*arguments, "--json", code=code)).splitlines()]

    async def requests(self) -> list[Any]:
        return await messages_on(self.settings, Topic.REQUESTS)


@pytest.fixture
async def letters(stack: Stack, settings: Settings) -> AsyncIterator[Letters]:
    own = settings.model_copy(update={"kafka_topic_prefix": PREFIX})
    await ensure_topics(own)
    app = create_app(own)
    yield Letters(stack, own, EventProducer(app, PREFIX))
    await app.producer.stop()


async def test_dead_letters_are_listed_shown_and_published_again(letters: Letters) -> None:
    """R2: bytes, key and headers are unchanged, also in binary mode."""
    event = request_event(ExportRequest(user_id="u", export_type="ledger", format="csv"), source="/t")
    headers = [("content-type", b"application/json"), ("topic", b"mine"), ("x", b"\xff")]
    await letters.put_aside(event.encode(), "cannot be dealt with: NOTIFY", headers=headers, key=b"k")
    await letters.put_aside(b"\x1b[31mnot json", "not JSON: \x1b[2J", Topic.TICKS)
    await letters.put_aside(b"z" * (2 * 2**20), "too large")
    await letters.put_aside(b"{}", "a forgery", "payments", foreign=True)

    found = await letters.told("list")
    reasons = {letter["error"]: letter for letter in found}
    outage = reasons["cannot be dealt with: NOTIFY"]
    assert outage["topic"] == letters.settings.topic(Topic.REQUESTS)
    assert (outage["partition"], outage["offset"]) == ("3", "17")
    assert outage["job_id"] == str(event.job_id)
    assert "\x1b" not in await letters.run("list")

    assert [x["id"] for x in await letters.told("list", "--error", "notify")] == [outage["id"]]
    assert [x["error"] for x in await letters.told("list", "--topic", "exports.ticks")] == [
        "not JSON: \x1b[2J"
    ]
    assert await letters.told("list", "--until", "1h") == []
    assert len(await letters.told("list", "--since", "1h", "--until", "2126-01-01")) == len(found)
    assert [x["id"] for x in await letters.told("list", "--limit", "2")] == [x["id"] for x in found[-2:]]

    (shown,) = await letters.told("show", outage["id"])
    assert json.loads(shown["value"])["id"] == event.id
    assert shown["key"] == "k"
    assert shown["headers"] == [["content-type", "application/json"], ["topic", "mine"], ["x", {"hex": "ff"}]]
    assert "\x1b" not in await letters.run("show", reasons["not JSON: \x1b[2J"]["id"])
    await letters.run("show", "999999", code=2)

    before = len(await letters.requests())
    (dry,) = await letters.told("redrive", outage["id"], "--dry-run")
    assert (dry["done"], dry["dry_run"]) == ("published", True)
    assert len(await letters.requests()) == before
    for more in ([], ["--dry-run"]):
        await letters.run("redrive", "--error", "NOTIFY", *more, code=2)  # no API says what was discarded
    assert len(await letters.told("redrive", "--error", "NOTIFY", "--again", "--dry-run")) == 1
    assert len(await letters.requests()) == before
    await letters.run("redrive", "--error", "NOTIFY", "--again")
    published = (await letters.requests())[before:]
    (again,) = published
    assert (again.key, again.value, list(again.headers)) == (b"k", event.encode(), headers)

    # Truncated messages, and messages of foreign topics, are not published.
    told = {letter["error"]: letter for letter in await letters.told("redrive", "--all", "--again", code=1)}
    assert "only the beginning of its" in told["too large"]["problem"]
    assert "not a topic of this service" in told["a forgery"]["problem"]
    assert {told[name]["done"] for name in ("too large", "a forgery")} == {"refused"}
    assert len(await letters.requests()) == before + 2
    assert len(await letters.told("list")) == len(found)  # they stay


@pytest.mark.parametrize(
    "arguments", [("redrive",), ("redrive", "--all", "1"), ("show", "x"), ("list", "--since", "soon")]
)
def test_invalid_options_are_refused(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["dead-letters", *arguments])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
