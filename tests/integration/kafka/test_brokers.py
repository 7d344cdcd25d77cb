"""Queries to the brokers, also after a cancelled query."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    BrokerResponseError,
    GroupCoordinatorNotAvailableError,
    InvalidConfigurationError,
    KafkaError,
    NoError,
    NotControllerError,
    PolicyViolationError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
)
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.structs import BrokerMetadata
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from stream_app.kafka import brokers as module
from stream_app.kafka.brokers import Brokers
from stream_app.kafka.consumer_thread import ConsumerThread, _seek_to_committed
from stream_app.kafka.group_errors import NOT_YET
from stream_app.settings import Settings
from stream_app.worker.health import BROKER_TIMEOUT, CHECK_TIMEOUT
from streaming_exporter import kafka_admin, kafka_connection
from streaming_exporter.errors import Outage, Retryable
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import client_options, ensure_topics
from tests.waiting import at_most, patient, until_async

PLACE = (str(Topic.TICKS), 0)


@pytest.fixture
async def brokers(settings: Settings) -> AsyncIterator[Brokers]:
    await ensure_topics(settings)
    opened = Brokers(settings, client_id="test")
    yield opened
    await opened.close()


@pytest.mark.parametrize("client", [AIOKafkaConsumer, AIOKafkaAdminClient])
async def test_a_query_can_be_cancelled_while_a_connection_opens(
    brokers: Brokers, client: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next query is still answered."""

    async def stands_still(_: object) -> None:
        await asyncio.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(client, "start", stands_still)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(brokers.end_offsets([PLACE]), 0.5)
    assert PLACE in await brokers.end_offsets([PLACE])
    assert await brokers.partitions([Topic.TICKS]) == {Topic.TICKS: {0}}


async def test_slow_connections_are_kept_for_the_next_query(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query needs several, one after another. With TLS, a sign-in and a slow DNS each takes its time."""
    await ensure_topics(settings)
    loop, connections = asyncio.get_running_loop(), 0
    connect = loop.create_connection

    async def connect_slowly(*arguments: Any, **options: Any) -> Any:
        nonlocal connections
        connections += 1
        await asyncio.sleep(0.4)
        return await connect(*arguments, **options)

    monkeypatch.setattr(loop, "create_connection", connect_slowly)
    brokers = Brokers(settings, client_id="test", timeout=0.5)
    tries = 0

    async def answered() -> bool:
        nonlocal tries
        tries += 1
        return bool(await brokers.logs([PLACE]) and await brokers.group())

    await until_async(answered, within=10, ignoring=(Outage,))
    opened = connections
    assert tries > 1
    brokers._timeout = patient(10)  # the last answer can be slow on a busy machine, as no connection is
    assert await answered()
    assert connections == opened
    await brokers.close()


async def test_an_address_that_does_not_answer_leaves_time_for_another_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broker of a cluster accepts connections, but is frozen."""
    await ensure_topics(settings)
    monkeypatch.setattr(random, "shuffle", lambda _: None)
    for limit in ("QUERY_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(module, limit, getattr(module, limit) / 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        servers = f"127.0.0.1:{silent.getsockname()[1]},{settings.kafka_bootstrap_servers}"
        both = settings.model_copy(update={"kafka_bootstrap_servers": servers})
        brokers = Brokers(both, client_id="test", timeout=patient(10))
        try:
            assert await brokers.partitions([Topic.TICKS]) == {Topic.TICKS: {0}}
        finally:
            await brokers.close()


QUERIES: dict[str, Callable[[Brokers], Awaitable[object]]] = {
    "partitions": lambda brokers: brokers.partitions([Topic.TICKS]),
    "topic_ids": lambda brokers: brokers.topic_ids([Topic.TICKS]),
    "retentions": lambda brokers: brokers.retentions([Topic.TICKS]),
    "leaderless": lambda brokers: brokers.leaderless([PLACE]),
    "logs": lambda brokers: brokers.logs([PLACE]),
    "group": lambda brokers: brokers.group(),
    "end_offsets": lambda brokers: brokers.end_offsets([PLACE]),
}


@pytest.fixture
def ended_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients know a broker that has ended, as the others list it for some seconds, and ask it first."""
    bootstrap = AIOKafkaClient.bootstrap
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    async def with_ended_broker(client: AIOKafkaClient) -> None:
        await bootstrap(client)
        ended = BrokerMetadata(99, "127.0.0.1", port, None)
        client.cluster._brokers[ended.nodeId] = client.cluster.controller = ended

    monkeypatch.setattr(AIOKafkaClient, "bootstrap", with_ended_broker)
    monkeypatch.setattr(kafka_admin, "REFUSAL_SECONDS", patient(10))
    monkeypatch.setattr(random, "choice", max)
    monkeypatch.setattr(random, "shuffle", lambda brokers: brokers.sort(reverse=True))


async def _all_exist(brokers: Brokers, topics: set[str]) -> bool:
    return (await brokers.partitions(topics)).keys() == topics


@pytest.mark.usefixtures("ended_broker")
async def test_another_broker_creates_topics_where_the_controller_has_ended(
    settings: Settings,
) -> None:
    own = settings.model_copy(update={"kafka_topic_prefix": f"{uuid4().hex}."})
    await ensure_topics(own)
    brokers = Brokers(own, client_id="test", timeout=patient(5))
    try:
        names = {own.topic(topic) for topic in Topic}
        await until_async(lambda: _all_exist(brokers, names))  # the broker learns it from the controller
    finally:
        await brokers.close()


@pytest.mark.usefixtures("ended_broker")
@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_asks_another_broker_where_one_has_ended(settings: Settings, query: str) -> None:
    await ensure_topics(settings)
    brokers = Brokers(settings, client_id="test", timeout=patient(5))
    try:
        assert await QUERIES[query](brokers) is not None
    finally:
        await brokers.close()


GROUP_REQUESTS = [FindCoordinatorRequest, DescribeGroupsRequest, OffsetFetchRequest]


@pytest.fixture
async def committed(settings: Settings) -> TopicPartition:
    """Return a partition with the committed offset 7."""
    await ensure_topics(settings)
    place = TopicPartition(settings.topic(Topic.TICKS), 0)
    reader = AIOKafkaConsumer(**client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await reader.start()
    try:
        reader.assign([place])
        await reader.commit({place: 7})
    finally:
        await reader.stop()
    return place


class Coordinator:
    """Answers some requests of a kind with an error, in the place that their answers have for it."""

    def __init__(self, request_type: type, error: type[BrokerResponseError], refusals: int) -> None:
        self.request_type, self.error, self.refusals = request_type, error, refusals
        self.answers = 0
        self._send = AIOKafkaClient.send

    async def answer(self, client: AIOKafkaClient, node: Any, request: Any, **options: Any) -> Any:
        response = await self._send(client, node, request, **options)
        if isinstance(request, self.request_type):
            self.answers += 1
            if self.answers <= self.refusals:
                if groups := getattr(response, "groups", None):
                    response.groups = [(self.error.errno, *groups[0][1:])]
                else:
                    response.error_code = self.error.errno
                    response.topics = []
        return response

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it before the brokers."""
        monkeypatch.setattr(AIOKafkaClient, "send", lambda *given, **named: self.answer(*given, **named))


@pytest.mark.parametrize("request_type", GROUP_REQUESTS)
@pytest.mark.parametrize("error", NOT_YET)
async def test_a_group_is_queried_again_while_its_coordinator_cannot_answer(
    settings: Settings,
    committed: TopicPartition,
    monkeypatch: pytest.MonkeyPatch,
    request_type: type,
    error: type[BrokerResponseError],
) -> None:
    """After a restart of the brokers; a group without committed offsets would be a wrong answer."""
    coordinator = Coordinator(request_type, error, refusals=2)
    coordinator.install(monkeypatch)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    brokers = Brokers(settings, client_id="test", timeout=patient(5))
    try:
        assert (await brokers.group()).committed[committed] == 7
        assert coordinator.answers == 3
    finally:
        await brokers.close()


@pytest.mark.parametrize("request_type", GROUP_REQUESTS)
async def test_a_coordinator_that_refuses_for_good_is_named_before_the_time_out(
    settings: Settings, committed: TopicPartition, monkeypatch: pytest.MonkeyPatch, request_type: type
) -> None:
    """And the next query need not wait until this one is over."""
    coordinator = Coordinator(request_type, GroupCoordinatorNotAvailableError, refusals=1_000)
    coordinator.install(monkeypatch)
    brokers = Brokers(settings, client_id="test", timeout=patient(2))
    try:
        with pytest.raises(Outage, match="GroupCoordinatorNotAvailableError"):
            await brokers.group()
        assert brokers._running is None
        assert await brokers.partitions([Topic.TICKS])
    finally:
        await brokers.close()


async def test_a_connection_that_is_silent_is_opened_again(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has an error for it that brokers answer with, too."""
    questions: list[object] = []

    async def question(admin: object, _: object) -> None:
        questions.append(admin)
        raise RequestTimedOutError

    with pytest.raises(Outage, match="RequestTimedOutError"):
        await brokers._run(question)
    assert len(set(questions)) == module.ATTEMPTS


@pytest.mark.parametrize("error", NOT_YET)
async def test_a_consumer_seeks_to_its_offset_although_the_coordinator_cannot_answer_at_first(
    settings: Settings,
    committed: TopicPartition,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BrokerResponseError],
) -> None:
    """Otherwise it would read again whatever the topic has, from the beginning."""
    coordinator = Coordinator(OffsetFetchRequest, error, refusals=2)
    coordinator.install(monkeypatch)
    client = AIOKafkaConsumer(
        **client_options(settings), group_id=settings.group, enable_auto_commit=False, retry_backoff_ms=10
    )
    monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: client)
    ConsumerThread._create_worker_consumer(object.__new__(ConsumerThread), cast(Any, None))
    await client.start()
    try:
        client.assign([committed])
        assert await _seek_to_committed(client) == {committed: 7}
        assert coordinator.answers >= 3  # the client asks by itself, too
    finally:
        await client.stop()


async def test_queries_of_several_callers_run_one_after_another(brokers: Brokers) -> None:
    """A second query would take the place of the first one, which would never be ended."""
    running: list[int] = []

    async def question(*_: object) -> int:
        running.append(1)
        await asyncio.sleep(0.05)
        number = len(running)
        running.clear()
        return number

    found = await asyncio.gather(*(brokers._run(question) for _ in range(3)))
    assert found == [1, 1, 1]


async def test_a_topic_that_is_created_again_has_another_id(brokers: Brokers, settings: Settings) -> None:
    """R7: a topic that does not exist has no id."""
    name = f"anew-{uuid4()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    found = []

    async def ids_of(exists: bool) -> dict[str, Any]:
        """Wait until the broker knows whether the topic exists; return the ids."""
        async with at_most(30):
            while (name in (ids := await brokers.topic_ids([name, Topic.TICKS, "none"]))) != exists:
                pass
        return ids

    for _ in range(2):
        await admin.create_topics([NewTopic(name, 1, 1)])
        found.append(await ids_of(exists=True))
        await admin.delete_topics([name])
        await ids_of(exists=False)
    await admin.close()
    assert found[0].keys() == found[1].keys() == {name, Topic.TICKS}
    assert found[0][name] != found[1][name]
    assert found[0][Topic.TICKS] == found[1][Topic.TICKS]


async def test_brokers_that_refuse_the_retention_of_a_topic_keep_it_by_their_default(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise no worker of a new installation becomes ready: some services allow 30 days, or no setting."""
    own = settings.model_copy(update={"kafka_topic_prefix": f"{uuid4().hex}."})
    names, audit = [own.topic(topic) for topic in Topic], own.topic(Topic.AUDIT)
    monkeypatch.setitem(kafka_connection.RETENTION, Topic.AUDIT, timedelta(milliseconds=-5))
    await ensure_topics(own)
    brokers, admin = Brokers(own, client_id="test"), AIOKafkaAdminClient(**client_options(own))
    await admin.start()
    try:
        async with at_most(30):
            while len(await brokers.partitions(names)) < len(Topic):
                pass
        kept = await brokers.retentions(names)
    finally:
        await admin.delete_topics(names)
        await admin.close()
        await brokers.close()
    assert kept[audit] == kept[own.topic(Topic.EVENTS)]
    assert kept[own.topic(Topic.DEAD_LETTERS)] == timedelta(days=30)
    (refused,) = (line.getMessage() for line in caplog.records if "retention_refused" in line.getMessage())
    assert audit in refused


async def test_topics_are_created_by_the_new_controller_after_another_broker_has_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ZooKeeper only the controller creates topics, and the known one can be outdated."""
    own = settings.model_copy(update={"kafka_topic_prefix": f"{uuid4().hex}."})
    calls: list[list[str]] = []

    async def answer(_: object, topics: list[NewTopic]) -> Any:
        calls.append([topic.name for topic in topics])
        refused = topics[1:] if len(calls) == 1 else []
        return SimpleNamespace(
            topic_errors=[
                (topic.name, (NotControllerError if topic in refused else NoError).errno, "")
                for topic in topics
            ]
        )

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", answer)
    await ensure_topics(own)
    assert calls == [[own.topic(topic) for topic in Topic], [own.topic(topic) for topic in Topic][1:]]


@pytest.mark.parametrize("refusal", [InvalidConfigurationError, PolicyViolationError])
@pytest.mark.parametrize("second", [NoError, TopicAlreadyExistsError, PolicyViolationError])
async def test_only_a_topic_with_a_configuration_is_created_without_it(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusal: type[KafkaError],
    second: type[KafkaError],
) -> None:
    """A policy can refuse other things, too, such as the number of copies: that is an error."""
    calls: list[dict[str, dict[str, str]]] = []
    own = settings.model_copy(update={"kafka_topic_prefix": f"{uuid4().hex}."})

    async def answer(_: object, topics: list[NewTopic]) -> Any:
        calls.append({topic.name: topic.topic_configs for topic in topics})
        errors = [
            second if len(calls) > 1 else refusal if topic.topic_configs else NoError for topic in topics
        ]
        return SimpleNamespace(
            topic_errors=[(topic.name, error.errno, "") for topic, error in zip(topics, errors, strict=True)]
        )

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", answer)
    if second is PolicyViolationError:
        with pytest.raises(Retryable, match="PolicyViolationError"):
            await ensure_topics(own)
    else:
        await ensure_topics(own)
    assert calls[0].keys() == {own.topic(topic) for topic in Topic}
    plain = {own.topic(topic) for topic in Topic if topic in kafka_connection.RETENTION}
    assert calls[1:] == [{name: {} for name in plain}]
    lines = [line.getMessage() for line in caplog.records if "retention_refused" in line.getMessage()]
    named = {name for name in plain if any(name in line for line in lines)}
    assert (named, len(lines)) == ((plain, len(plain)) if second is NoError else (set(), 0))


def test_two_queries_time_out_before_the_health_check_does() -> None:
    assert 2 * BROKER_TIMEOUT < CHECK_TIMEOUT
