"""The headers of a call to the object store, and its retries."""

import hashlib
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.helpers import sha256_hash
from pydantic import SecretStr

from stream_app.datasets.destinations import S3Destination
from stream_app.destinations import s3
from stream_app.destinations.errors import TransferInterrupted
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.settings import Settings
from stream_app.storage.multipart_upload import open_multipart_upload
from stream_app.storage.object_store import ObjectStore
from stream_app.storage.s3_client import CONTENT_SHA256, s3_client
from streaming_exporter.errors import Outage

CONTENT = b"id,name\n1,a\n"
OF_CONTENT = hashlib.sha256(CONTENT).hexdigest()
SETTINGS = Settings(_env_file=None, s3_access_key=SecretStr("key"), s3_secret_key=SecretStr("secret"))


def headers(endpoint: str, known: dict[str, str], body: bytes = CONTENT) -> dict[str, Any]:
    client = s3_client(SETTINGS, endpoint, 1)
    made, _ = client._build_headers("host", known, body, Credentials("key", "secret"))
    return dict(made)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The bodies that the library hashes."""
    found: list[object] = []

    def noting(data: Any) -> str:
        found.append(data)
        return sha256_hash(data)

    monkeypatch.setattr("minio.api.sha256_hash", noting)
    return found


def test_a_known_hash_is_not_computed_again(hashed: list[object]) -> None:
    made = headers("http://store", {CONTENT_SHA256: OF_CONTENT})
    assert CONTENT not in hashed
    assert made == headers("http://store", {}) | {"x-amz-date": made["x-amz-date"]}
    assert hashed[-1] == CONTENT, "without a known hash it is computed"


def test_an_empty_body_has_its_hash_and_no_length() -> None:
    empty = hashlib.sha256(b"").hexdigest()
    made = headers("http://store", {CONTENT_SHA256: empty}, b"")
    assert made == headers("http://store", {}, b"") | {"x-amz-date": made["x-amz-date"]}


def test_with_tls_the_body_is_not_signed() -> None:
    made = headers("https://store", {CONTENT_SHA256: OF_CONTENT})
    assert made[CONTENT_SHA256] == "UNSIGNED-PAYLOAD"
    assert made["Content-Length"] == str(len(CONTENT))


@pytest.mark.parametrize(("seconds", "retry_seconds", "tries"), [(0.4, 0.3, 2), (0, 0.3, 2), (0.1, 0, 1)])
def test_a_call_is_retried_however_long_it_took_to_fail(
    monkeypatch: pytest.MonkeyPatch, seconds: float, retry_seconds: float, tries: int
) -> None:
    """A large part over a slow network takes longer than the time for retries."""
    begun: list[float] = []

    def lost(*_: object) -> None:
        begun.append(time.monotonic())
        time.sleep(seconds if len(begun) == 1 else 0.4)
        raise urllib3.exceptions.ProtocolError("the connection was lost")

    monkeypatch.setattr(Minio, "_url_open", lost)
    client = s3_client(SETTINGS, "http://store", 1, retry_seconds=retry_seconds)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        client._url_open("PUT", "region", body=CONTENT)
    assert len(begun) == tries


def put() -> None:
    storage = ObjectStore(SETTINGS, retry_seconds=0)
    storage.put("key", iter([CONTENT]), content_type="text/plain", file_name="f", metadata=dict)


def upload() -> None:
    with open_multipart_upload(s3_client(SETTINGS, "http://store", 1), "bucket", "key", {}):
        raise ValueError("of the block")


def copy_in_the_store() -> None:
    destination = S3Destination(name="acme", kind="s3", bucket="bucket", path="{file_name}")
    stopped = iter([False, True])
    session = s3.S3Session(destination, SETTINGS, SessionOptions("tag", 1, lambda: next(stopped)))
    session.copy(OutgoingFile("f", "f", "text/plain", s3.COPY_PART + 1, OF_CONTENT), "exports", "key")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (put, Outage),
        (upload, ValueError),
        (copy_in_the_store, TransferInterrupted),
    ],
)
@pytest.mark.parametrize(("seconds", "tries"), [(60, 1), (0, 2)])
def test_a_clean_up_is_not_repeated_if_the_store_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[], None],
    error: type[Exception],
    seconds: int,
    tries: int,
) -> None:
    """The error that led to it waits for its end. One that fails at once is repeated."""
    removals = 0
    clock = 0

    def unanswered(_: Minio, method: str, *__: object) -> None:
        nonlocal removals, clock
        if method == "DELETE":
            removals += 1
            clock += seconds if removals == 1 else 60
        raise urllib3.exceptions.ReadTimeoutError(cast(Any, None), "url", "no answer")

    monkeypatch.setattr("stream_app.storage.s3_client.time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(Minio, "_url_open", unanswered)
    monkeypatch.setattr(Minio, "_create_multipart_upload", lambda *_: "id")
    with pytest.raises(error):
        call()
    assert removals == tries
