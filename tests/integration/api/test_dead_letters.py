"""Operators list, look at, redrive and discard dead letters; only administrators see their content."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.fetch import FetchRequest
from faust.types import EventT
from faust.types.tuples import ConsumerMessage

from api.operations.dead_letters import DeadLetters, without_values
from producers import dead_letter_api
from stream_app.composition.worker import create_app
from stream_app.kafka.dead_letter_topic import Selection, newest_letters, parse_id
from stream_app.kafka.event_producer import EventProducer
from stream_app.settings import Settings
from streaming_exporter.errors import PublishError, Retryable, Unreadable, UsageError
from streaming_exporter.events import DEAD_LETTER_HEADERS, ExportRequest, Topic, request_event
from streaming_exporter.kafka_connection import client_options, ensure_topics
from streaming_exporter.publisher import Publisher
from tests.integration.api.conftest import Harness, changed, client_of, harness_of
from tests.integration.api.test_client_library import served
from tests.topics import messages_on

OPERATE, ADMIN = "exports:operate", "exports:admin"


@pytest_asyncio.fixture(loop_scope="module")
async def letters(api: Harness) -> AsyncIterator[tuple[Harness, EventProducer]]:
    """The API with topics of its own, and a producer of dead letters."""
    prefix = f"marks-{uuid4().hex[:8]}."
    settings = changed(api.settings, kafka_topic_prefix=prefix)
    await ensure_topics(settings)
    worker = create_app(settings)
    async with harness_of(settings) as own:
        yield own, EventProducer(worker, prefix)
    await worker.producer.stop()


async def put_aside(settings: Settings, producer: EventProducer, value: bytes, reason: str) -> None:
    message = ConsumerMessage(
        settings.topic(Topic.REQUESTS), 0, 17, 0.0, 1, [], b"k", value, None, generation_id=1
    )
    await producer.dead_letter(
        cast(EventT[bytes], type("Received", (), {"message": message})()), Unreadable(reason)
    )


async def act(
    client: httpx2.AsyncClient, action: str, *ids: str, again: bool = False
) -> list[tuple[str, str | None]]:
    body = {"letters": [{"id": name} for name in ids], "again": again}
    answer = await client.post(f"/exports/dead-letters:{action}", json=body)
    assert answer.status_code == 200, answer.text
    return [(item["done"], item["problem"]) for item in answer.json()["results"]]


async def test_letters_are_redriven_once_and_marked(
    letters: tuple[Harness, EventProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2, P19: of calls at the same time one publishes; a lost answer of Kafka is not repeated by itself."""
    harness, producer = letters
    event = request_event(ExportRequest(user_id="u", export_type="ledger", format="csv"), source="/t")
    await put_aside(harness.settings, producer, event.encode(), "data.format: unknown, got 'secret'")
    await put_aside(harness.settings, producer, b"secret", "not JSON")
    await put_aside(harness.settings, producer, b"third", "not JSON either")
    async with harness.user(OPERATE, user_id="boss") as operator, harness.user(ADMIN) as admin:
        answer = await operator.get("/exports/dead-letters")
        found = answer.json()
        assert (found["total"], [item["state"] for item in found["dead_letters"]]) == (3, ["new"] * 3)
        assert "secret" not in answer.text
        ids = {item["bytes"]: item["id"] for item in found["dead_letters"]}
        request, broken, third = ids[len(event.encode())], ids[6], ids[5]
        assert next(item for item in found["dead_letters"] if item["id"] == request)["job_id"] == str(
            event.job_id
        )
        closed, shown = [
            (await client.get(f"/exports/dead-letters/{broken}")).json() for client in (operator, admin)
        ]
        assert (closed["value"], closed["key"], closed["headers"]) == (None, None, None)
        assert (shown["value"], shown["key"]) == ("secret", "k")
        assert (await operator.get("/exports/dead-letters?error=secret")).status_code == 403
        assert (await operator.get("/exports/dead-letters/x")).status_code == 422

        done = await asyncio.gather(*(act(operator, "redrive", request) for _ in range(4)))
        assert sorted(result for [(result, _)] in done) == ["redriven", "refused", "refused", "refused"]
        assert len(await messages_on(harness.settings, Topic.REQUESTS)) == 1
        [(result, problem)] = await act(operator, "redrive", request)
        assert result == "refused"
        assert "it was redriven by boss at" in str(problem)
        assert await act(operator, "redrive", request, again=True) == [("redriven", None)]
        assert len(await messages_on(harness.settings, Topic.REQUESTS)) == 2
        assert await act(operator, "discard", broken, "0:999") == [
            ("discarded", None),
            ("refused", "there is no such dead letter"),
        ]

        async def lost(*_: object) -> None:
            raise PublishError("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(Publisher, "publish_raw", lost)
            [(result, problem)] = await act(operator, "redrive", third)
        assert (result, str(problem)[:12]) == ("refused", "it is not kn")
        [(result, problem)] = await act(operator, "redrive", third)
        assert "repeat it with `again`" in str(problem)
        states = {
            state: [
                item["id"]
                for item in (await operator.get(f"/exports/dead-letters?state={state}")).json()[
                    "dead_letters"
                ]
            ]
            for state in ("new", "redriving", "redriven", "discarded")
        }
        assert states == {"new": [], "redriving": [third], "redriven": [request], "discarded": [broken]}
        other = {"letters": [{"id": broken, "at": "2020-01-01T00:00:00Z"}], "again": True}
        [result] = (await operator.post("/exports/dead-letters:redrive", json=other)).json()["results"]
        assert result["problem"] == "there is no such dead letter", "of another cluster"


async def test_the_commands_use_the_marks_of_the_api(letters: tuple[Harness, EventProducer]) -> None:
    """P19: `exporter dead-letters redrive` twice publishes once; `discard` marks."""
    from typer.testing import CliRunner

    from producers.__main__ import cli
    from producers.tokens import sign_token

    harness, producer = letters
    for value in (b"one", b"two"):
        await put_aside(harness.settings, producer, value, f"not JSON: {value.decode()}")
    token = sign_token(harness.settings, "boss", [OPERATE])
    env = {
        "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": harness.settings.kafka_bootstrap_servers,
        "EXPORTER_KAFKA_TOPIC_PREFIX": harness.settings.kafka_topic_prefix,
    }

    async with served(harness) as url:

        async def command(*arguments: str, code: int) -> list[str]:
            given = ["dead-letters", *arguments, "--json", "--api-url", url, "--token", token]
            done = await asyncio.to_thread(CliRunner().invoke, cli, given, env=env)
            assert done.exit_code == code, done.output
            return [json.loads(line)["done"] for line in done.stdout.splitlines() if line[:1] == "{"]

        assert await command("redrive", "--all", "--dry-run", code=0) == ["published", "published"]
        assert await command("redrive", "--error", "one", code=0) == ["published"]
        assert await command("redrive", "--error", "one", code=1) == ["refused"]
        assert await command("redrive", "--all", "--dry-run", code=1) == ["refused", "published"]
        assert await command("redrive", "--all", "--dry-run", "--again", code=0) == ["published"] * 2
        assert await command("discard", "--all", code=1) == ["refused", "discarded"]
        assert await command("redrive", "--all", "--dry-run", code=1) == ["refused", "refused"]
        given = ["dead-letters", "redrive", "--all", "--api-url", url, "--token", token]
        dry, real = [
            re.findall(
                r"^\d+:\d+  .*$",
                (await asyncio.to_thread(CliRunner().invoke, cli, [*given, *more], env=env)).stdout,
                re.MULTILINE,
            )
            for more in (["--dry-run"], [])
        ]
        assert dry == real, "a dry run says what the run says"
        for line, state in zip(dry, ("redriven", "discarded"), strict=True):
            assert f"it was {state} by boss at" in line

        async def listed(*arguments: str) -> list[str]:
            given = ["dead-letters", "list", *arguments, "--api-url", url, "--token", token]
            done = await asyncio.to_thread(CliRunner().invoke, cli, given, env=env)
            assert done.exit_code == 0, done.output
            return [line for line in done.stdout.splitlines() if re.match(r"\d+:\d+  ", line)]

        one, two = await listed()
        assert "  redriven  " in one
        assert "  discarded  " in two
        assert await listed("--state", "discarded") == [two]
        assert await listed("--state", "new") == []
        missing = ["dead-letters", "discard", "0:9999", "--api-url", url, "--token", token]
        done = await asyncio.to_thread(CliRunner().invoke, cli, missing, env=env)
        assert done.exit_code == 1
        assert "0:9999  there is no such dead letter" in done.stderr
    assert [message.value for message in await messages_on(harness.settings, Topic.REQUESTS)] == [b"one"]


async def test_a_read_waits_for_no_later_message(
    letters: tuple[Harness, EventProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of a partition Kafka waits half a second for the next one, unless it is asked not to.

    On a busy machine the time of a read does not show it. So the test looks at what Kafka is asked for.
    """
    send, asked = AIOKafkaConnection.send, []

    def look_and_send(self: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(request, FetchRequest):
            asked.append(request._max_wait_ms)
        return send(self, request, *arguments, **named)

    harness, producer = letters
    await put_aside(harness.settings, producer, b"secret", "not JSON")
    monkeypatch.setattr(AIOKafkaConnection, "send", look_and_send)
    _, number = await newest_letters(harness.settings, Selection(), 1)
    assert number == 1
    assert 0 < max(asked) < 50


async def test_the_newest_of_several_partitions_are_listed(
    letters: tuple[Harness, EventProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their times, by the API and by the command, which finds all states over several lists of the API."""
    from typer.testing import CliRunner

    from producers.__main__ import cli
    from producers.tokens import sign_token

    harness, _ = letters
    settings = changed(harness.settings, kafka_topic_prefix=f"parts-{uuid4().hex[:8]}.")
    options = client_options(settings)
    admin, producer = AIOKafkaAdminClient(**options), AIOKafkaProducer(**options)
    name = settings.topic(Topic.DEAD_LETTERS)
    await admin.start()
    await admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])
    await admin.close()
    start = int(time.time() * 1_000) - 60_000
    headers = [(header, b"0") for header in DEAD_LETTER_HEADERS]
    await producer.start()
    for partition, times in ((0, (0, 10, 30, 50)), (1, (0, 20, 40, 5))):
        for at in times:
            await producer.send_and_wait(
                name, b"x" * (at + 1), partition=partition, timestamp_ms=start + at, headers=headers
            )
    await producer.stop()

    monkeypatch.setattr(dead_letter_api, "MOST", 3)
    token = sign_token(settings, "boss", [OPERATE])
    env = {
        "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "EXPORTER_KAFKA_TOPIC_PREFIX": settings.kafka_topic_prefix,
    }
    async with harness_of(settings) as own, served(own) as url:

        async def listed(*arguments: str) -> tuple[list[tuple[int, str]], str]:
            given = ["dead-letters", "list", "--json", *arguments, "--api-url", url, "--token", token]
            done = await asyncio.to_thread(CliRunner().invoke, cli, given, env=env)
            assert done.exit_code == 0, done.output
            found = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
            return [(letter["bytes"] - 1, letter["state"]) for letter in found], done.stderr

        async with client_of(own.app, token) as operator:
            answer = (await operator.get("/exports/dead-letters?limit=2")).json()
            assert (answer["total"], [item["bytes"] - 1 for item in answer["dead_letters"]]) == (8, [50, 40])
            assert (await listed("--limit", "2"))[0] == [(40, "new"), (50, "new")]
            assert await act(operator, "discard", "0:0", "1:0", "0:1", "1:3") == [("discarded", None)] * 4
        old, new = [(at, "discarded") for at in (0, 0, 5, 10)], [(at, "new") for at in (20, 30, 40, 50)]
        assert await listed("--state", "discarded") == (old, "4 dead letters\n")
        assert await listed("--state", "new") == (new, "4 dead letters\n")
        assert await listed() == ([*old, *new], "8 dead letters\n")


async def test_a_state_database_that_goes_away_loses_no_result(
    letters: tuple[Harness, EventProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last mark of a published letter fails, and the first mark of another one: the answer has both."""
    harness, producer = letters
    for value in (b"one", b"three"):
        await put_aside(harness.settings, producer, value, "not JSON")
    execute = DeadLetters._execute
    calls = 0

    async def goes_away(self: DeadLetters, *arguments: Any, **values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Retryable("away")
        return await execute(self, *arguments, **values)

    async with harness.user(OPERATE, user_id="boss") as operator:
        found = (await operator.get("/exports/dead-letters")).json()["dead_letters"]
        with monkeypatch.context() as patched:
            patched.setattr(DeadLetters, "_execute", goes_away)
            first, second = await act(operator, "redrive", *(item["id"] for item in found))
        assert first == ("redriven", None)
        assert second[0] == "refused"
        assert "was not published" in str(second[1])
    assert len(await messages_on(harness.settings, Topic.REQUESTS)) == 1


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("data.format: unknown, got 'x y'", "data.format: unknown"),
        ("type 'export.secret' is not known", "type … is not known"),
        ("not JSON", "not JSON"),
        (
            f"cannot be handled: {ValueError('a secret with ' + chr(39) + chr(34))!r}",
            "cannot be handled: ValueError(…)",
        ),
        ("cannot be handled: DataError('invalid input: the secret, cut he", "cannot be handled: DataError(…"),
        ('cannot be handled: DataError("it\'s a secret")', "cannot be handled: DataError(…)"),
        ("cannot be handled: DataError('it\\", "cannot be handled: DataError(…"),
        ("cannot be handled: KeyError(b'secret')", "cannot be handled: KeyError(…)"),
        ("the job's id is no 'secret'", "the job's id is no …"),
    ],
)
def test_reasons_are_shown_without_values(reason: str, shown: str) -> None:
    assert without_values(reason) == shown


@pytest.mark.parametrize("letter_id", ["x", "1:x", ":1", "9" * 5000, "1:" + "9" * 5000])
def test_what_is_no_id_is_refused(letter_id: str) -> None:
    with pytest.raises(UsageError, match="is not the id of a dead letter"):
        parse_id(letter_id)
