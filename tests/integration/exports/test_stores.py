"""Object stores with other behaviour (P9, P10, P11, P20, R17, R18), by a proxy before the real one."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from minio.lifecycleconfig import LifecycleConfig

from stream_app.doctor.bucket import _check_upload
from stream_app.doctor.findings import State
from stream_app.settings import Settings
from stream_app.storage import parts
from stream_app.storage.checksums import ChecksumMethod
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import NeedsOperator, Outage, Rejected, Retryable
from tests.store_proxy import Proxy, Request
from tests.waiting import patient

LARGE = 9 * 2**20
SSE = "x-amz-server-side-encryption"


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.s3_endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


Open = Callable[..., ObjectStore]


@pytest.fixture
def behind(proxy: Proxy, settings: Settings, storage: ObjectStore) -> Open:
    """Returns the bucket behind the proxy, with changed settings."""

    def opened(retry_seconds: float = 20, **changes: Any) -> ObjectStore:
        endpoint = f"http://127.0.0.1:{proxy.server_port}"
        return ObjectStore(
            settings.model_copy(update={"s3_endpoint": endpoint, **changes}), retry_seconds=retry_seconds
        )

    return opened


def put(store: ObjectStore, size: int, **options: Any) -> tuple[str, bytes]:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    key = store.key(uuid4(), 1, "f")
    chunks = (content[start : start + 1_000_003] for start in range(0, len(content), 1_000_003))
    store.put(key, chunks, content_type="text/plain", file_name="f", metadata=dict, **options)
    return key, content


def refusing(header: str, status: int, code: str) -> Callable[[Request], tuple[int, str] | None]:
    return lambda request: (status, code) if any(header in name for name in request.headers) else None


REFUSALS = [
    (501, "NotImplemented"),
    (400, "InvalidArgument"),
    (400, "InvalidRequest"),
    (403, "SignatureDoesNotMatch"),
]


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_refused_checksums_are_replaced(
    behind: Open, proxy: Proxy, storage: ObjectStore, status: int, code: str
) -> None:
    """P9: the refusal is found once, for small and large files. The content is then checked otherwise."""
    store = behind()
    proxy.rule = refusing("x-amz-checksum", status, code)
    for size in (LARGE, 10, 5 * 2**20 + 1, LARGE):
        key, content = put(store, size)
        assert storage.read(key) == content
        storage.removal.remove(key)
    assert proxy.refused == 1
    assert store.checksum_support.best is ChecksumMethod.MD5
    assert all(
        "content-md5" in request.headers for request in proxy.seen if request.call in ("put", "part")[-1:]
    )
    finding = _trial_of(store)
    assert finding.state is State.WARNING
    assert "refuses x-amz-checksum" in finding.what


def _trial_of(store: ObjectStore) -> Any:
    import asyncio

    return asyncio.run(_check_upload(store, Settings(_env_file=None)))


def test_an_upload_without_any_supported_check_succeeds(
    behind: Open, proxy: Proxy, storage: ObjectStore
) -> None:
    """P9: neither checksums nor Content-MD5."""
    store = behind()
    proxy.rule = lambda request: (
        (501, "NotImplemented")
        if any("checksum" in name or name == "content-md5" for name in request.headers)
        else None
    )
    for size in (10, LARGE):
        key, content = put(store, size)
        assert storage.read(key) == content
        storage.removal.remove(key)
    assert store.checksum_support.best is ChecksumMethod.NONE


@pytest.mark.parametrize("size", [10, 5 * 2**20, 5 * 2**20 + 1, 8 * 2**20 - 1, 8 * 2**20, LARGE])
def test_every_size_is_checked_and_nothing_is_copied(
    behind: Open, proxy: Proxy, storage: ObjectStore, size: int
) -> None:
    """P10, R18: also between 5 and 8 MiB, and for a store without CopyObject."""
    proxy.rule = lambda request: (501, "NotImplemented") if request.is_copy else None
    key, content = put(behind(), size)
    assert storage.read(key) == content
    storage.removal.remove(key)
    assert proxy.refused == 0
    for request in proxy.seen:
        assert not request.is_copy
        if request.call in ("put", "part"):
            assert "x-amz-checksum-crc32" in request.headers


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"s3_sse": "s3"}, {SSE: "AES256"}),
        ({"s3_sse": "kms"}, {SSE: "aws:kms"}),
        (
            {"s3_sse": "kms", "s3_sse_kms_key": "key-1"},
            {SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "key-1"},
        ),
    ],
)
def test_a_policy_that_demands_encryption(
    behind: Open, proxy: Proxy, size: int, chosen: dict[str, str], expected: dict[str, str]
) -> None:
    """P11: without the setting an operator must act; with the setting files are written."""
    proxy.rule = lambda request: (
        (403, "AccessDenied") if request.call in ("put", "create") and SSE not in request.headers else None
    )
    proxy.dropped = (SSE, f"{SSE}-aws-kms-key-id")  # the store here has no keys
    with pytest.raises(NeedsOperator, match="AccessDenied") as raised:
        put(behind(), size)
    assert raised.value.reason == "the object store refuses the service (AccessDenied)"
    finding = _trial_of(behind())
    assert finding.state is State.PROBLEM
    assert "AccessDenied" in finding.what
    assert "EXPORTER_S3_SSE" in finding.advice
    proxy.seen.clear()
    # The dropped headers are signed, so only the sent request is checked.
    with pytest.raises(Retryable):
        put(behind(retry_seconds=0, **chosen), size)
    first = next(request for request in proxy.seen if request.call in ("put", "create"))
    assert {name: value for name, value in first.headers.items() if name.startswith(SSE)} == expected


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")]
)
def test_every_call_is_repeated(
    behind: Open, proxy: Proxy, storage: ObjectStore, status: int, code: str
) -> None:
    """R17: each kind of call fails twice, and the export is not repeated."""
    times = Counter[str]()

    def twice(request: Request) -> tuple[int, str] | None:
        times[request.call] += 1
        return (status, code) if times[request.call] <= 2 else None

    proxy.rule = twice
    store = behind()
    store.check()
    large, content = put(store, LARGE)
    small, _ = put(store, 10)
    assert store.exists(large)
    assert list(store.listing.pages(large.split("/")[1]))
    assert storage.read(large) == content
    store.removal.remove(large)
    store.removal.remove(small)
    assert {"list", "create", "part", "complete", "put", "head", "delete"} <= times.keys()
    assert proxy.refused >= 2 * 7


def test_a_completion_in_doubt_is_checked(behind: Open, proxy: Proxy, storage: ObjectStore) -> None:
    """R17: the store has completed the upload, and every answer to that is lost."""
    proxy.deaf_to = lambda request: request.call == "complete"
    key, content = put(behind(retry_seconds=0.5), LARGE)
    assert storage.read(key) == content
    storage.removal.remove(key)
    assert proxy.seen[-1].call == "head"


def test_a_completion_that_failed_leaves_nothing(behind: Open, proxy: Proxy, storage: ObjectStore) -> None:
    proxy.rule = lambda request: (503, "SlowDown") if request.call == "complete" else None
    store = behind(retry_seconds=0.5)
    job_id = uuid4()
    with pytest.raises(Outage, match="SlowDown"):
        store.put(
            store.key(job_id, 1, "f"),
            iter([b"x" * LARGE]),
            content_type="text/plain",
            file_name="f",
            metadata=dict,
        )
    assert [found for page in storage.listing.pages(job_id) for found in page] == []


def test_a_cancelled_export_does_not_wait_for_the_store(behind: Open, proxy: Proxy) -> None:
    """R17: calls are not repeated after the export was stopped."""
    proxy.rule = lambda request: (503, "SlowDown") if request.call == "put" else None
    stopped = threading.Event()
    threading.Timer(0.5, stopped.set).start()
    began = time.monotonic()
    with pytest.raises(Outage, match="SlowDown"):
        put(behind(retry_seconds=patient(60)), 10, stopped=stopped)
    assert time.monotonic() - began < patient(20)


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "EntityTooLarge")]
)
def test_a_call_that_the_store_never_accepts_fails_the_job(
    behind: Open, proxy: Proxy, status: int, code: str
) -> None:
    """P10: a permanent refusal is no outage."""
    proxy.rule = lambda request: (status, code) if request.call == "create" else None
    with pytest.raises(Rejected, match=code) as raised:
        put(behind(), LARGE)
    assert raised.value.code == "store_refused"


def test_parts_grow_with_the_file_and_large_ones_are_on_disk(
    behind: Open, proxy: Proxy, storage: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18."""
    monkeypatch.setattr("stream_app.storage.object_store.PART_SIZE", 5 * 2**20)
    monkeypatch.setattr(parts, "LARGER", ((1, 2),))
    monkeypatch.setattr(parts, "IN_MEMORY", 6 * 2**20)
    tried = Counter[str]()

    def once(request: Request) -> tuple[int, str] | None:
        tried[request.path] += 1
        return (503, "SlowDown") if request.call == "part" and tried[request.path] == 1 else None

    proxy.rule = once
    key, content = put(behind(), 17 * 2**20)
    assert storage.read(key) == content
    storage.removal.remove(key)
    sizes = {r.path: r.headers["content-length"] for r in proxy.seen if r.call == "part"}
    assert sorted(map(int, sizes.values())) == [2 * 2**20, 5 * 2**20, 10 * 2**20]


@pytest.mark.parametrize("after", [0, LARGE])
@pytest.mark.parametrize("error", [FileNotFoundError("a template"), TimeoutError("late"), ValueError("bad")])
def test_an_error_of_the_chunks_is_not_mapped_as_a_store_error(
    storage: ObjectStore, after: int, error: Exception
) -> None:
    """V14: before the first part, and between parts."""

    def chunks() -> Iterator[bytes]:
        yield b"x" * after
        raise error

    job_id = uuid4()
    with pytest.raises(type(error), match=str(error)) as raised:
        storage.put(storage.key(job_id, 1, "f"), chunks(), content_type="t/p", file_name="f", metadata=dict)
    assert raised.value is error
    assert [found for page in storage.listing.pages(job_id) for found in page] == []


def test_a_bucket_is_shared(settings: Settings, storage: ObjectStore) -> None:
    """P20: all objects of a deployment are below its prefix, and no other objects are listed or removed."""
    name = f"shared-{uuid4().hex[:8]}"
    stores = [
        ObjectStore(settings.model_copy(update={"s3_bucket": name, "s3_key_prefix": prefix}))
        for prefix in ("", "team-a", "team-a/exports", "team-b")
    ]
    stores[0].ensure_bucket()
    job_id = uuid4()
    keys = []
    for store in stores:
        keys.append(store.key(job_id, 1, "f"))
        store.put(keys[-1], iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
        store._client._create_multipart_upload(name, store.key(job_id, 2, "g"), {})
        assert store.set_lifecycle_rules(settings)
    for store, key in zip(stores, keys, strict=True):
        assert key.startswith(f"{store.prefix}/{job_id}/1-")
        found = [item for page in store.listing.pages() for item in page]
        assert {item.attempt for item in found} == {1, 2}
        assert len(found) == 2
        assert all(item.key.startswith(f"{store.prefix}/") for item in found)
    rules = stores[0]._client.get_bucket_lifecycle(name)
    assert isinstance(rules, LifecycleConfig)
    filters = {rule.rule_filter.prefix for rule in rules.rules if rule.rule_filter}
    assert filters == {f"{store.prefix}/" for store in stores}
    stores[1].removal.remove_attempts(job_id, before=3)
    assert [store.exists(key) for store, key in zip(stores, keys, strict=True)] == [True, False, True, True]
