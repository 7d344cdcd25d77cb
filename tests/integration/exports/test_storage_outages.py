"""Errors of the store, made by a proxy between the service and the real store."""

import threading
from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest

from stream_app.db.engine import create_engine
from stream_app.doctor.clocks import check_clocks
from stream_app.doctor.findings import State
from stream_app.exports.sources.errors import source_errors
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Outage, Rejected, Retryable
from tests.store_proxy import Proxy


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.s3_endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def behind(proxy: Proxy, settings: Settings, storage: ObjectStore) -> ObjectStore:
    """The bucket behind the proxy."""
    endpoint = f"http://127.0.0.1:{proxy.server_port}"
    return ObjectStore(
        settings.model_copy(update={"s3_endpoint": endpoint}), timeout_seconds=30, retry_seconds=0.3
    )


def put(storage: ObjectStore, size: int = 10) -> str:
    key = f"jobs/{uuid4()}/1/f"
    storage.put(key, iter([b"x" * size]), content_type="text/plain", file_name="f", metadata=dict)
    return key


def test_the_proxy_forwards_calls(behind: ObjectStore, storage: ObjectStore) -> None:
    key = put(behind, 9 * 2**20)
    assert storage.exists(key)
    storage.removal.remove(key)
    assert not behind.exists(key)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (507, "XMinioStorageFull"),
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
    ],
)
@pytest.mark.parametrize("size", [10, 9 * 2**20])
def test_a_store_that_is_down_is_an_outage(
    behind: ObjectStore, proxy: Proxy, status: int, code: str, size: int
) -> None:
    proxy.status, proxy.code, proxy.methods = status, code, ("PUT", "POST")
    with pytest.raises(Outage, match=code):
        put(behind, size)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "BadDigest"), (400, "InvalidRequest"), (404, "NoSuchUpload")]
)
def test_a_refusal_of_one_call_counts_as_an_attempt(
    behind: ObjectStore, proxy: Proxy, status: int, code: str
) -> None:
    proxy.status, proxy.code, proxy.methods = status, code, ("PUT",)
    with pytest.raises(Retryable, match=code) as raised:
        put(behind)
    assert not isinstance(raised.value, Outage)


@pytest.mark.slow
def test_a_connection_that_breaks(behind: ObjectStore, proxy: Proxy) -> None:
    proxy.hang_up = True
    with pytest.raises(Outage):
        put(behind)
    assert proxy.refused >= 2  # the upload and its removal


@pytest.mark.slow
def test_an_error_page_of_a_proxy_is_an_outage(behind: ObjectStore, proxy: Proxy) -> None:
    """The response is not one of S3."""
    for code in ("</Error>", "</Code></Error>"):
        proxy.status, proxy.code = 502, code
        with pytest.raises(Outage):
            put(behind)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (asyncpg.AdminShutdownError, Outage),
        (asyncpg.CrashShutdownError, Outage),
        (asyncpg.CannotConnectNowError, Outage),
        (asyncpg.TooManyConnectionsError, Outage),
        (asyncpg.ConnectionDoesNotExistError, Retryable),
        (asyncpg.OutOfMemoryError, Retryable),
        (asyncpg.SerializationError, Retryable),
        (asyncpg.UndefinedTableError, Rejected),
    ],
)
def test_errors_of_the_source_become_exceptions(
    error: type[asyncpg.PostgresError], meaning: type[Exception]
) -> None:
    """The statement can be the cause of a lost connection, so it must not be retried for ever."""
    with pytest.raises(meaning) as raised, source_errors():
        raise error("said so")
    assert type(raised.value) is meaning


async def test_a_clock_that_is_wrong(behind: ObjectStore, proxy: Proxy, settings: Settings) -> None:
    engine = create_engine(settings, application="test")
    async with engine.connect() as connection:
        right = [finding async for finding in check_clocks(connection, behind)]
        proxy.date = "Tue, 24 Nov 2020 06:00:00 GMT"
        wrong = [finding async for finding in check_clocks(connection, behind)]
    await engine.dispose()
    assert [finding.state for finding in right] == [State.OK, State.OK]
    assert [finding.state for finding in wrong] == [State.OK, State.PROBLEM]
    assert "NTP" in wrong[1].advice
