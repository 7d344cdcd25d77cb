"""An answer that is lost is never reported as a no, and its error has what makes another call harmless."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from typer.testing import CliRunner

from producers.__main__ import cli
from streaming_exporter import AsyncExportClient, ExportClient, ExportRequest
from streaming_exporter.api_answers import read_retry_after
from streaming_exporter.errors import ApiError, PublishError
from streaming_exporter.events import tick_event
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.publisher import Publisher
from tests.rows import each_row

JOB = UUID("4f1c0de0-0000-4000-8000-000000000001")
REQUEST = ExportRequest(user_id="u", export_type="ledger", format="csv")
DOUBT = "it is not known whether"


class FailingProducer:
    """A producer whose messages all end with one error. ``keys`` are those of the messages."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.keys: list[bytes] = []

    async def send_and_wait(self, *_: Any, key: bytes, **__: Any) -> None:
        self.keys.append(key)
        raise self.error

    async def stop(self) -> None:
        pass


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> FailingProducer:
    producer = FailingProducer(error)

    async def connected(_: Publisher) -> FailingProducer:
        return producer

    async def ensured(*_: Any) -> None:
        """Find that the topic exists."""

    monkeypatch.setattr(Publisher, "_connected", connected)
    monkeypatch.setattr(Publisher, "_ensure", ensured)
    return producer


LOST = [
    RequestTimedOutError(),
    KafkaTimeoutError(),
    KafkaConnectionError(),
    NotEnoughReplicasAfterAppendError(),
    TimeoutError(),
    ConnectionResetError(),
]


@pytest.mark.parametrize("error", LOST, ids=repr)
async def test_an_event_without_a_confirmation_is_in_doubt(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = fail_with(error, monkeypatch)
    publisher = Publisher(KafkaSettings())
    for call in (publisher.request(REQUEST), publisher.request(REQUEST, JOB), publisher.cancel(JOB)):
        with pytest.raises(PublishError, match=DOUBT) as caught:
            await call
        assert caught.value.is_in_doubt
        assert str(caught.value.job_id).encode() == producer.keys[-1]
    assert producer.keys[1:] == [str(JOB).encode()] * 2
    with pytest.raises(PublishError, match=DOUBT) as caught:
        await publisher.publish(tick_event(datetime.now(UTC), source="/test"))
    assert caught.value.job_id is None, "a tick is about no job"


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), TopicAuthorizationFailedError()], ids=repr)
async def test_an_event_that_kafka_refuses_is_not_in_doubt(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    with pytest.raises(PublishError, match="did not take the event") as caught:
        await Publisher(KafkaSettings()).request(REQUEST, JOB)
    assert (caught.value.is_in_doubt, caught.value.job_id) == (False, JOB)


@pytest.mark.parametrize("given", [None, JOB])
def test_the_command_says_how_a_request_without_a_confirmation_is_repeated(
    given: UUID | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = fail_with(RequestTimedOutError(), monkeypatch)
    order = ["request", "--export-type", "ledger", "--format", "csv", "--user-id", "u"]
    result = CliRunner().invoke(cli, [*order, *(["--job-id", str(given)] if given else [])])
    assert result.exit_code == 1, result.output
    assert DOUBT in result.stderr
    assert f"repeat it with --job-id {producer.keys[0].decode()}, so" in result.stderr
    assert given is None or producer.keys == [str(given).encode()]


def test_the_command_says_how_a_cancellation_without_a_confirmation_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(RequestTimedOutError(), monkeypatch)
    result = CliRunner().invoke(cli, ["cancel", str(JOB)])
    assert result.exit_code == 1, result.output
    assert f"{DOUBT} it arrived" in result.stderr
    assert "repeat the command" in result.stderr


class Api:
    """An API whose answers are all the same error, or an answer. ``keys`` are those of the calls."""

    def __init__(self, answer: Exception | httpx2.Response) -> None:
        self.answer = answer
        self.keys: list[str | None] = []

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.append(request.headers.get("Idempotency-Key"))
        if isinstance(self.answer, Exception):
            raise self.answer
        kind = {"content-type": self.answer.headers["content-type"]}
        return httpx2.Response(self.answer.status_code, content=self.answer.content, headers=kind)

    def fail(self, name: str, *arguments: Any, **named: Any) -> list[ApiError]:
        """Make the call with both clients; return their errors."""
        transport, errors = httpx2.MockTransport(self.handle), []
        with ExportClient("http://api", "token") as client:
            client._http.close()
            client._http = httpx2.Client(base_url="http://api", transport=transport)
            with pytest.raises(ApiError) as caught:
                getattr(client, name)(*arguments, **named)
            errors.append(caught.value)

        async def fail_async() -> None:
            async with AsyncExportClient("http://api", "token") as client:
                await client._http.aclose()
                client._http = httpx2.AsyncClient(base_url="http://api", transport=transport)
                await getattr(client, name)(*arguments, **named)

        with pytest.raises(ApiError) as caught:
            asyncio.run(fail_async())
        return [*errors, caught.value]


LOST_ANSWERS = [
    httpx2.ReadTimeout("too late"),
    httpx2.RemoteProtocolError("Server disconnected without sending a response."),
    httpx2.ReadError("reset"),
    httpx2.WriteTimeout("too late"),
    httpx2.Response(504, text="<html>"),
    httpx2.Response(502, text="<html>"),
    httpx2.Response(503, text="upstream connect error or disconnect/reset before headers"),
    httpx2.Response(524, text="<html>"),
]
CHANGES: list[tuple[str, tuple[Any, ...]]] = [
    ("submit", (REQUEST,)), ("submit_and_wait", (REQUEST,)), ("rerun", (JOB,)),
]  # fmt: skip


@each_row("answer", LOST_ANSWERS)
@each_row(("name", "arguments"), CHANGES)
def test_a_call_whose_answer_is_lost_is_in_doubt_and_has_its_key(
    name: str, arguments: tuple[Any, ...], answer: Exception | httpx2.Response
) -> None:
    api = Api(answer)
    for given in ({}, {"idempotency_key": "mine"}):
        errors = api.fail(name, *arguments, **given)
        assert all(error.is_in_doubt and DOUBT in str(error) for error in errors)
        assert not [error for error in errors if "cannot be reached" in str(error)]
        assert [error.idempotency_key for error in errors] == api.keys[-2:]
    assert api.keys[2:] == ["mine", "mine"]
    assert None not in api.keys
    assert len(set(api.keys)) == 3, "each call has its own key"


@each_row("answer", LOST_ANSWERS)
@each_row(("name", "arguments"), [("cancel", (JOB,)), ("password", (JOB,)), ("call", ("PATCH", "/x", {}))])
def test_a_change_without_a_key_is_in_doubt_too(
    name: str, arguments: tuple[Any, ...], answer: Exception | httpx2.Response
) -> None:
    assert all(error.is_in_doubt and DOUBT in str(error) for error in Api(answer).fail(name, *arguments))


@pytest.mark.parametrize(
    ("answer", "name", "arguments"),
    [
        (httpx2.ConnectError("refused"), "submit", (REQUEST,)),
        (httpx2.ConnectTimeout("late"), "submit", (REQUEST,)),
        (httpx2.ReadTimeout("late"), "record", (JOB,)),
        (httpx2.Response(504, text="<html>"), "record", (JOB,)),
        (httpx2.Response(503, json={"title": "Service Unavailable", "code": "outage"}), "submit", (REQUEST,)),
        (httpx2.Response(403, json={"title": "Forbidden", "code": "no"}), "submit", (REQUEST,)),
    ],
)
def test_a_call_that_has_changed_nothing_is_not_in_doubt(
    answer: Exception | httpx2.Response, name: str, arguments: tuple[Any, ...]
) -> None:
    assert not [error for error in Api(answer).fail(name, *arguments) if error.is_in_doubt]


def test_a_lost_job_after_its_submission_has_the_key() -> None:
    """The request is accepted, and the call that reads the job fails."""
    keys: list[str | None] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        keys.append(request.headers.get("Idempotency-Key"))
        if request.method == "POST":
            return httpx2.Response(202, json={"export_job_id": str(uuid4()), "status": "pending"})
        raise httpx2.ConnectError("refused")

    with ExportClient("http://api", "token") as client:
        client._http.close()
        client._http = httpx2.Client(base_url="http://api", transport=httpx2.MockTransport(handle))
        with pytest.raises(ApiError) as caught:
            client.submit_and_wait(REQUEST, seconds=1)
    assert caught.value.idempotency_key == keys[0] is not None


def test_the_command_says_how_a_lost_rerun_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str | None] = []

    def call(_: ExportClient, *__: Any, idempotency_key: str | None) -> None:
        used.append(idempotency_key)
        raise ApiError("lost", is_in_doubt=True)

    monkeypatch.setattr(ExportClient, "call", call)
    for options in ([], ["--idempotency-key", "mine"]):
        result = CliRunner().invoke(
            cli, ["rerun", str(JOB), "--token", "t", "--api-url", "http://h", *options]
        )
        assert result.exit_code == 1, result.output
        assert f"repeat it with --idempotency-key {used[-1]}, so" in result.stderr
    assert used[1] == "mine" != used[0]


def test_the_time_of_the_next_call_is_a_number_or_a_time() -> None:
    assert read_retry_after("7") == 7
    assert read_retry_after("Fri, 27 Nov 2020 14:00:00 GMT") == 0
    later = read_retry_after("Fri, 27 Nov 2099 14:00:00 GMT")
    assert later is not None
    assert later > 1e9
    assert [read_retry_after(text) for text in (None, "", "soon", "-1", "²")] == [None] * 5
