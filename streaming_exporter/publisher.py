"""Publishes requests, cancellations and ticks to Kafka; needs the extra ``kafka``."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from streaming_exporter.errors import EventTooLarge, PublishError, Retryable, TooLarge, Unreadable
from streaming_exporter.events import Event, RequestIdentity, cancel_event, request_event
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.request_messages import encode_checked

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

log = logging.getLogger(__name__)

MAX_BYTES = 1_048_576
"""The largest message that aiokafka sends, with its key. Kafka's own default is about the same."""

MAX_FAILURES = 3
"""Failures in a row after which the connection is replaced."""

DEFAULT_TIMEOUT = 10.0
"""Seconds within which Kafka must acknowledge an event."""

CLOSE_SECONDS = 3.0
"""How long :meth:`Publisher.close` waits for an attempt to connect, which cannot be cancelled cleanly."""


class Publisher:
    """Publishes events; ``async with Publisher(settings) as publisher``.

    It connects at the first call and again after failures, so a process can start and run while Kafka cannot
    be reached.

    It is not an idempotent producer. Such a producer retries without end, so an event whose publication was
    reported as failed would arrive after the outage. A repeated event does no harm: its id names the job.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str = "exporter",
        source: str = "/exporter/command",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if find_spec("aiokafka") is None:
            raise ImportError("Publisher needs aiokafka; install streaming-exporter[kafka]")
        self._settings = settings
        self._client_id = client_id
        self._source = source
        self._timeout = timeout
        self._producer: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[AIOKafkaProducer] | None = None
        self._failures = 0
        self._visible: set[str] = set()
        self._creating = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Flush and disconnect."""
        if connecting := self._connecting:
            await asyncio.wait([connecting], timeout=min(self._timeout, CLOSE_SECONDS))
            connecting.cancel()  # no effect on one that has ended
            await asyncio.wait([connecting], timeout=self._timeout)
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(producer.stop(), self._timeout)
        await asyncio.gather(*self._stopping)

    async def publish(self, event: Event) -> None:
        """Publish ``event``; returns once every in-sync replica has it.

        Raises:
            PublishError: Kafka did not acknowledge it in time. The error has the ``job_id`` of the event.
        """
        try:
            await self.publish_raw(self._settings.topic(event.topic), event.key, event.encode())
        except PublishError as error:
            with suppress(Unreadable):  # a tick is about no job
                error.job_id = event.job_id
            raise

    async def publish_raw(
        self, topic: str, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Publish a message as it is.

        Args:
            topic: the cluster's name of the topic, with the prefix of the settings.

        Raises:
            PublishError: Kafka did not acknowledge it in time.
        """
        from aiokafka.errors import KafkaError

        producer: AIOKafkaProducer | None = None
        is_sent = False
        try:
            # The producer's own time-out is shorter: it removes the event from the queue when it fails.
            async with asyncio.timeout(1.5 * self._timeout):
                producer = await self._connected()
                if topic not in self._visible:
                    await self._ensure(producer, topic)
                is_sent = True
                await producer.send_and_wait(topic, value, key=key, headers=list(headers))
        except (KafkaError, Retryable, OSError, TimeoutError) as error:
            if isinstance(error, _refusals()):
                self._failures = 0  # the connection works
                raise self._refusal(error, topic, len(value)) from error
            await self._note_failure(producer)
            raise self._failure(error, is_in_doubt=is_sent) from error
        self._failures = 0

    async def request(self, request: RequestIdentity, job_id: UUID | None = None) -> Event:
        """Request an export; returns the event, which has the job's id in ``job_id``.

        Raises:
            Rejected: a field of the request has become invalid since it was made.
            Unreadable: the service could not read the event, for example because of a NUL character.
            EventTooLarge: the event is too large for Kafka. It is a ``TooLarge`` and a ``PublishError``.
            PublishError: Kafka did not acknowledge it in time. The error has the ``job_id``: with it, another
                call requests the same job, whether or not the first event has arrived.
        """
        event = request_event(request, job_id=job_id, source=self._source)
        _check(event)
        await self.publish(event)
        return event

    async def cancel(self, job_id: UUID) -> Event:
        """Request that a job is cancelled.

        Raises:
            PublishError: Kafka did not acknowledge it in time.
        """
        event = cancel_event(job_id, source=self._source)
        _check(event)
        await self.publish(event)
        return event

    async def check(self) -> None:
        """Fetch the cluster's metadata, to check the connection.

        Raises:
            PublishError: Kafka does not answer in time.
        """
        from aiokafka.errors import KafkaError

        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(self._timeout):
                producer = await self._connected()
                await producer.client.fetch_all_metadata()
        except (KafkaError, Retryable, OSError, TimeoutError) as error:
            await self._note_failure(producer)
            raise self._failure(error) from error
        self._failures = 0

    async def _note_failure(self, producer: "AIOKafkaProducer | None") -> None:
        """Count a failure; after :data:`MAX_FAILURES` in a row the next call connects anew."""
        self._failures += 1
        if self._failures < MAX_FAILURES or producer is None or producer is not self._producer:
            return
        self._producer, self._failures = None, 0
        task = asyncio.create_task(self._stop(producer))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, producer: "AIOKafkaProducer") -> None:
        with suppress(Exception):
            await asyncio.wait_for(producer.stop(), self._timeout)

    async def _connected(self) -> "AIOKafkaProducer":
        """Return the producer. All calls that need it wait for the same attempt to connect.

        A call that is cancelled does not end that attempt: aiokafka would leave a connection open, and under
        load calls that take less time than an attempt would never connect.

        Raises:
            Retryable: the publisher was closed meanwhile.
        """
        if self._producer is not None:
            return self._producer
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._note_connection)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            call = asyncio.current_task()
            if connecting.cancelled() and call is not None and not call.cancelling():
                raise Retryable("the publisher was closed") from None
            raise

    def _note_connection(self, task: "asyncio.Task[AIOKafkaProducer]") -> None:
        """Keep the producer of an attempt that has ended. Those who wait for it have its error."""
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._producer = task.result()

    async def _connect(self) -> "AIOKafkaProducer":
        from aiokafka import AIOKafkaProducer

        from streaming_exporter.kafka_connection import bootstrap_on_failure, client_options

        producer = AIOKafkaProducer(
            **client_options(self._settings),
            client_id=self._client_id,
            acks="all",
            max_request_size=MAX_BYTES,
            request_timeout_ms=int(self._timeout * 1000),
            metadata_max_age_ms=60_000,
        )
        bootstrap_on_failure(producer.client)
        try:
            await producer.start()
            self._visible = set((await producer.client.fetch_all_metadata()).topics())
        except BaseException:
            with suppress(Exception):
                await producer.stop()
            raise
        return producer

    async def _ensure(self, producer: "AIOKafkaProducer", topic: str) -> None:
        """Create the topic if it is missing.

        Otherwise the broker can create it itself, with its default number of partitions. Only the topic that
        is published is looked for: a principal does not see the topics on which it has no right.

        Raises:
            Retryable: it is missing and cannot be created.
        """
        from streaming_exporter.kafka_connection import ensure_topics

        async with self._creating:
            if topic in self._visible:
                return
            if topic not in (await producer.client.fetch_all_metadata()).topics():
                await ensure_topics(self._settings, wanted=topic)
            self._visible.add(topic)

    def _failure(self, error: BaseException, *, is_in_doubt: bool = False) -> PublishError:
        from streaming_exporter.kafka_connection import NOT_ALLOWED, RIGHTS_ADVICE, NotAllowed

        log.warning("event.publish_failed: %r", error)
        if isinstance(error, NotAllowed):
            return PublishError(str(error))
        if isinstance(error, NOT_ALLOWED):
            return PublishError(f"Kafka did not take the event ({error}); {RIGHTS_ADVICE}")
        reason = str(error) or type(error).__name__
        done = "confirm the event" if is_in_doubt else "take the event"
        doubt = "it is not known whether it arrived; " if is_in_doubt else ""
        return PublishError(
            f"Kafka at {self._settings.kafka_bootstrap_servers} did not {done} ({reason}); {doubt}"
            "check that it runs there, or set EXPORTER_KAFKA_BOOTSTRAP_SERVERS to the right address",
            is_in_doubt=is_in_doubt,
        )

    def _refusal(self, error: BaseException, topic: str, size: int) -> PublishError:
        """Return the error for an event that Kafka refuses itself, while the connection works."""
        from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError

        if not isinstance(error, MessageSizeTooLargeError | InvalidTopicError):
            return self._failure(error)
        log.warning("event.publish_failed: %r", error)
        where = f"Kafka at {self._settings.kafka_bootstrap_servers} did not take the event: "
        if isinstance(error, InvalidTopicError):
            return PublishError(f"{where}{topic} is no name of a topic. Check EXPORTER_KAFKA_TOPIC_PREFIX")
        return EventTooLarge(
            f"{where}its {size:,} bytes are more than the brokers allow. Shorten it, or raise "
            f"max.message.bytes of the topic {topic}"
        )


def _check(event: Event) -> None:
    """Refuse an event that the service could not read, or that is too large for Kafka."""
    try:
        encode_checked(event, MAX_BYTES)
    except TooLarge as error:
        raise EventTooLarge(str(error), job_id=event.job_id) from error


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors of aiokafka after which an event has certainly not arrived, also after retries."""
    from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError, TopicAuthorizationFailedError

    return (InvalidTopicError, MessageSizeTooLargeError, TopicAuthorizationFailedError)
