"""A deployment on a broker whose principals have exactly the rights of docs/operations.md."""

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import httpx2
import pytest

from dev.stack import Stack
from producers.tokens import sign_token
from stream_app.kafka.brokers import Brokers
from stream_app.settings import Settings
from streaming_exporter.errors import Outage, PublishError
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import NotAllowed, ensure_topics
from streaming_exporter.publisher import Publisher
from tests.documents import BLOCKS
from tests.e2e.deployment import Deployment
from tests.e2e.listeners import AuthorizingKafka
from tests.waiting import patient, until, until_async

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizingKafka]:
    service = AuthorizingKafka(tmp_path_factory.mktemp("rights"))
    service.start()
    yield service
    service.kill()
    service.discard()


@pytest.fixture(scope="module")
def own(stack: Stack, broker: AuthorizingKafka) -> Iterator[Deployment]:
    """A deployment whose topics were made beforehand, with the rights of the document."""
    deployment = Deployment(
        stack, EXPORTER_KAFKA_TOPIC_PREFIX="", EXPORTER_KAFKA_BOOTSTRAP_SERVERS=broker.address
    )
    asyncio.run(ensure_topics(deployment.settings))
    for right in documented_rights():
        broker.allow(*right)
    yield deployment
    deployment.close()


def documented_rights() -> Iterator[tuple[str, str, str, str]]:
    """Yield principal, operation, kind and name of each right that the document gives."""
    (block,) = (block for block in BLOCKS if block.test == "dry kafka-acls.sh")
    for line in block.text.splitlines():
        if not line.startswith("acl --"):
            continue
        options = [(word.removeprefix("--"), value) for word, value in pairwise(shlex.split(line)[1:])]
        known = dict(options)
        for kind in ("topic", "group"):
            for name in (value for option, value in options if option == kind):
                yield known["allow-principal"], known["operation"], kind, name


def settings_of(own: Deployment, broker: AuthorizingKafka, principal: str) -> Settings:
    changes = own.variables | broker.variables(principal)
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in changes.items()}
    return Settings(_env_file=None, **(own.settings.model_dump(exclude_unset=True) | fields))


def test_the_documented_rights_are_enough(stack: Stack, own: Deployment, broker: AuthorizingKafka) -> None:
    """A tick starts a schedule, and the API lists a dead letter and says that Kafka is well."""
    with ExitStack() as ending:

        def variables(principal: str) -> dict[str, str]:
            return own.variables | broker.variables(f"exporter-{principal}")

        worker = stack.start_worker(settings=variables("worker"))
        ending.callback(worker.kill)
        api = stack.start_api(settings=variables("api"))
        ending.callback(api.kill)
        token = sign_token(own.settings, "ops", ["exports:operate", "exports:all"])
        client = ending.enter_context(
            httpx2.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=patient(30))
        )
        wanted = {"export_type": "proofs", "format": "json", "schedule": "daily", "time_of_day": "00:00"}
        made = client.post("/exports/schedules", json=wanted)
        assert made.status_code == 201, made.text
        asyncio.run(execute(own, "UPDATE scheduled_exports SET next_run = date_trunc('day', now(), 'UTC')"))
        asyncio.run(publish(settings_of(own, broker, "billing"), b"not json"))
        with stack.configured(variables("ticker")):
            ticker = stack.start_ticker()
        ending.callback(ticker.kill)

        def completed() -> Any:
            jobs = client.get("/exports/jobs").json()["jobs"]
            return [job for job in jobs if job["status"] == "completed"]

        until(completed, within=60, otherwise=lambda: f"{ticker.child.tail()}\n{worker.child.tail()}")
        letters = until(lambda: client.get("/exports/dead-letters").json()["dead_letters"])
        assert [letter["topic"] for letter in letters] == [Topic.REQUESTS]
        found: list[dict[str, Any]] = []

        def is_well() -> bool:
            report = client.get("/exports/operations/doctor").json()
            found[:] = [finding for finding in report["findings"] if finding["area"] == "kafka"]
            return not any(finding["state"] == "problem" for finding in found)

        until(is_well, otherwise=lambda: str(found))  # a slow answer of a broker is a problem, too
    assert {finding["check"] for finding in found} >= {"retention"}


async def test_a_missing_right_is_named(own: Deployment, broker: AuthorizingKafka) -> None:
    """It is no outage of Kafka, which answers."""
    ticker = settings_of(own, broker, "exporter-ticker")
    async with Publisher(ticker, timeout=patient(5)) as publisher:
        with pytest.raises(PublishError, match=r"exports\.events is missing, or .* no right to DESCRIBE"):
            await publisher.publish_raw(ticker.topic(Topic.EVENTS), None, b"x")
    brokers = Brokers(ticker, client_id="t")

    async def found() -> list[dict[str, timedelta | None]]:
        return [await brokers.retentions([ticker.topic(Topic.AUDIT)])]

    async def refused() -> NotAllowed | None:
        try:
            await brokers.group()
        except NotAllowed as error:
            return error
        return None

    assert await until_async(found, ignoring=(Outage,)) == [{}]
    assert "GroupAuthorizationFailed" in str(await until_async(refused, ignoring=(Outage,)))
    await brokers.close()


async def publish(settings: Settings, content: bytes) -> None:
    async with Publisher(settings) as publisher:
        await publisher.publish_raw(settings.topic(Topic.REQUESTS), None, content)


async def execute(own: Deployment, sql: str) -> None:
    connection = await asyncpg.connect(own.settings.database_url.get_secret_value())
    await connection.execute(sql)
    await connection.close()
