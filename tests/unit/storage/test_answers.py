"""Answers with a status of success that are not those of S3, and those that the library cannot read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from itertools import product
from threading import Event
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import urllib3

from stream_app.datasets.destinations import S3Destination
from stream_app.destinations import s3
from stream_app.destinations.errors import AWAY, DestinationError
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.storage import s3_client
from stream_app.storage.listing import ListedObject
from stream_app.storage.object_store import ObjectStore
from stream_app.storage.parts import PART_SIZE
from streaming_exporter.errors import ExporterError, NeedsOperator, Outage, Rejected, Retryable
from tests.unit.storage.test_s3_client import OF_CONTENT, SETTINGS

JOB = uuid4()
KEYS = [f"jobs/{JOB}/1-0123456789abcdef/{number}.csv" for number in range(5)]
NAMESPACE = b" xmlns='http://s3.amazonaws.com/doc/2006-03-01/'"
LISTING = b"<ListBucketResult%s><Name>exports</Name></ListBucketResult>" % NAMESPACE
UPLOADS = b"<ListMultipartUploadsResult%s/>" % NAMESPACE
OPENED = (
    b"<InitiateMultipartUploadResult%s><UploadId>u</UploadId></InitiateMultipartUploadResult>" % NAMESPACE
)
DELETED = b"<DeleteResult%s/>" % NAMESPACE
COPIED = b"<CopyObjectResult%s><ETag>&quot;t&quot;</ETag></CopyObjectResult>" % NAMESPACE
COMPLETED = b"<CompleteMultipartUploadResult%s/>" % NAMESPACE
TAG = {"ETag": '"t"'}
OF_STORE = {"X-Amz-Request-Id": "1"}
OF_CLOUDFRONT = {"X-Amz-Cf-Id": "1"}
OF_GATEWAY = {"X-Amz-Apigw-Id": "1"}


def error_document(code: str) -> bytes:
    return f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


@dataclass
class Answer:
    """What a server sends."""

    body: bytes = b""
    status: int = 200
    kind: str = "application/xml"
    headers: dict[str, str] = field(default_factory=dict)

    def response(self, method: str, preload_content: bool) -> urllib3.HTTPResponse:
        headers = {"Content-Type": self.kind, **self.headers}
        body = BytesIO(b"" if method == "HEAD" else self.body)
        return urllib3.HTTPResponse(body, headers, self.status, preload_content=preload_content)


class Network:
    """Gives the answers of a store, and another answer to the calls with a method and a word in the query."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._others: dict[tuple[str, str], Answer] = {}

    def replace(self, method: str, word: str, other: Answer) -> None:
        """Give ``other`` as the answer to such calls."""
        self._others[method, word] = other

    def urlopen(self, method: str, url: str, **options: Any) -> urllib3.HTTPResponse:
        """Replace the method of the HTTP client."""
        self.calls.append(method)
        query = urlsplit(url).query
        made = _of_s3(method, query, is_copy="x-amz-copy-source" in options["headers"])
        for (other_method, word), other in self._others.items():
            if method == other_method and word in query:
                made = other
        return made.response(method, options["preload_content"])


def _of_s3(method: str, query: str, *, is_copy: bool) -> Answer:
    match method:
        case "GET" if "uploads" in query:
            return Answer(UPLOADS)
        case "GET" if "prefix" in query:
            return Answer(LISTING)
        case "GET":
            return Answer(b"content", headers=TAG)
        case "POST":
            return Answer(OPENED if "uploads" in query else DELETED if "delete" in query else COMPLETED)
        case "PUT":
            return Answer(COPIED) if is_copy else Answer(headers=TAG)
        case "DELETE":
            return Answer(status=204)
        case _:
            return Answer(status=404)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(urllib3.PoolManager, "urlopen", made.urlopen)
    return made


def storage(retry_seconds: float = 0) -> ObjectStore:
    return ObjectStore(SETTINGS, retry_seconds=retry_seconds)


def session() -> s3.S3Session:
    destination = S3Destination(name="acme", kind="s3", bucket="bucket", path="{file_name}")
    made = s3.S3Session(destination, SETTINGS, SessionOptions("tag", 1, lambda: False))
    made._client.retry_seconds = 0
    return made


def put(size: int) -> None:
    content = bytes(size)
    storage().put("key", iter([content]), content_type="text/plain", file_name="f", metadata=dict)


def put_small() -> None:
    put(7)


def put_large() -> None:
    put(PART_SIZE)


def copy(size: int) -> bool:
    return session().copy(OutgoingFile("f", "f", "text/plain", size, OF_CONTENT), "exports", "key")


def copy_small() -> bool:
    return copy(7)


def copy_large() -> bool:
    return copy(s3.COPY_PART + 1)


CALLS: dict[str, tuple[str, str, Callable[[], object]]] = {
    "check": ("GET", "list-type", lambda: storage().check()),
    "put": ("PUT", "", put_small),
    "open": ("POST", "uploads", put_large),
    "part": ("PUT", "partNumber", put_large),
    "complete": ("POST", "uploadId", put_large),
    "list": ("GET", "list-type", lambda: list(storage().listing.keys_in("folder"))),
    "uploads": ("GET", "uploads", lambda: storage().listing.open_uploads()),
    "remove": ("DELETE", "", lambda: storage().removal.remove("key")),
    "remove many": ("POST", "delete", lambda: storage().removal.remove_all(KEYS)),
    "read": ("GET", "", lambda: storage().read("key")),
    "copy": ("PUT", "", copy_small),
    "copy parts": ("PUT", "partNumber", copy_large),
    "complete a copy": ("POST", "uploadId", copy_large),
}
"""Calls by name, each with the method and the beginning of the query of the call that gets another answer."""


def kind_of_error(call: Callable[[], object]) -> str:
    """Return the name of the error that a call raises; for one of a destination, its text."""
    try:
        call()
    except DestinationError as error:
        return str(error)
    except ExporterError as error:
        return type(error).__name__
    return "none"


@pytest.mark.parametrize("name", CALLS)
def test_the_answers_of_s3_are_taken(network: Network, name: str) -> None:
    _, _, call = CALLS[name]
    assert call() in (None, True, [], b"content")


PAGES = {
    "html": Answer(b"<!doctype html><title>Please sign in</title><p>Your session", kind="text/html"),
    "xhtml": Answer(b"<html xmlns='http://www.w3.org/1999/xhtml'><body>Please sign in</body></html>"),
    "json": Answer(b'{"blocked": true}', kind="application/json"),
    "latin-1": Answer("<p>Zugang gesperrt für heute".encode("latin-1"), 502, "text/html"),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "html") for name in CALLS),
        *product(("put", "list", "read", "copy"), list(PAGES)[1:]),
        # Of these answers nothing but the element at the root of the page tells that it is no answer of S3.
        ("complete", "xhtml"),
        ("remove", "xhtml"),
    ],
)
def test_a_page_is_an_outage(network: Network, name: str, kind: str) -> None:
    """A file that is not copied is uploaded, which has the same error if the store is away."""
    method, word, call = CALLS[name]
    network.replace(method, word, PAGES[kind])
    if "copy" in name:
        assert call() is False
    else:
        assert kind_of_error(call) == "Outage"


@pytest.mark.parametrize("name", [name for name in CALLS if name != "read"])
def test_an_error_after_the_status_200_has_the_kind_of_its_code(network: Network, name: str) -> None:
    """The content of a file is not read for it."""
    method, word, call = CALLS[name]
    network.replace(method, word, Answer(error_document("SlowDown"), headers=TAG))
    assert kind_of_error(call) == (AWAY if "copy" in name else "Outage")
    network.replace(method, word, Answer(error_document("AccessDenied"), headers=TAG))
    if "copy" in name:
        assert call() is False, "the file is uploaded instead"
    else:
        assert kind_of_error(call) == "NeedsOperator"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("put", Answer()),
        ("part", Answer(headers={"ETag": ""})),
        ("open", Answer(OPENED.replace(b"UploadId", b"Id"))),
        ("list", Answer(LISTING.replace(b"Name", b"Prefix"))),
        ("check", Answer()),
        ("uploads", Answer(b"<Blocked/>")),
        ("uploads", Answer(LISTING.replace(b"Name", b"Prefix"))),
        ("part", Answer(headers=OF_STORE)),
        ("put", Answer(headers=OF_CLOUDFRONT)),
        ("read", Answer(b"Please sign in", headers=OF_CLOUDFRONT)),
        ("put", Answer(headers=OF_GATEWAY)),
        ("read", Answer(b"{}", headers=OF_GATEWAY)),
        ("put", Answer(b'{"blocked": true}', headers=TAG)),
        ("put", Answer(b"<p>Please sign in", headers=OF_STORE)),
        ("remove", Answer(b"OK")),
        ("complete", Answer(b"OK", headers=OF_STORE)),
        ("remove many", Answer(b"<Blocked/>")),
        ("copy", Answer(headers=OF_STORE)),
        ("copy", Answer(b"<CopyObjectResult/>", headers=TAG)),
        ("copy parts", Answer(headers=TAG)),
    ],
)
def test_an_answer_has_what_the_call_asked_for(network: Network, name: str, other: Answer) -> None:
    method, word, call = CALLS[name]
    network.replace(method, word, other)
    if "copy" in name:
        assert call() is False
    else:
        assert kind_of_error(call) == "Outage"


@pytest.mark.parametrize(
    "other",
    [
        Answer(headers=TAG),  # of a store that ignores the headers of a copy
        Answer(b"<html/>", 403, "text/html"),
        Answer(status=501),
        Answer(error_document("NotImplemented"), 501),
    ],
)
@pytest.mark.parametrize(("name", "calls"), [("copy", ["PUT"]), ("copy parts", ["POST", "PUT", "DELETE"])])
def test_a_copy_that_is_not_taken_is_not_tried_again(
    network: Network, name: str, calls: list[str], other: Answer
) -> None:
    """An object that a store has written without the content is replaced soon."""
    network.replace("PUT", "", other)
    made = session()
    made._client.retry_seconds = 1
    file = OutgoingFile("f", "f", "text/plain", 7 if name == "copy" else s3.COPY_PART + 1, OF_CONTENT)
    assert not made.copy(file, "exports", "key")
    assert not made.copy(file, "exports", "key"), "nor is the next file"
    assert network.calls == calls


@pytest.mark.parametrize(("stored", "is_copied"), [(OF_CONTENT, True), ("0" * 64, False)])
def test_a_copy_in_parts_whose_last_answer_was_lost_is_not_repeated(
    network: Network, stored: str, is_copied: bool
) -> None:
    """The retry of its completion finds no upload. Another content is that of an earlier job."""
    size = s3.COPY_PART + 1
    about = {"Content-Length": str(size), "x-amz-meta-sha256": stored, **TAG}
    network.replace("POST", "uploadId", Answer(error_document("NoSuchUpload"), 404))
    network.replace("HEAD", "", Answer(headers=about))
    made = session()
    assert made.copy(OutgoingFile("f", "f", "text/plain", size, OF_CONTENT), "exports", "key") is is_copied


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
@pytest.mark.parametrize("passes", [True, False])
def test_a_copy_is_tried_again_after_the_page_of_a_busy_proxy(
    network: Network, monkeypatch: pytest.MonkeyPatch, status: int, passes: bool
) -> None:
    """The store restarts. If that lasts longer than the retries, the file is uploaded."""

    class Pause(Event):
        def wait(self, timeout: float | None = None) -> bool:
            if passes:
                network.replace("PUT", "", Answer(COPIED))
            return not passes

    network.replace("PUT", "", Answer(b"<html/>", status, "text/html"))
    made = session()
    made._client.retry_seconds = 60
    monkeypatch.setattr(s3_client, "Event", Pause)
    file = OutgoingFile("f", "f", "text/plain", 7, OF_CONTENT)
    assert made.copy(file, "exports", "key") is passes


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("put", Answer(headers=OF_STORE)),
        ("put", Answer(b"OK", headers=OF_STORE)),
        ("put", Answer(headers={"E-Tag": '"t"'})),
        ("read", Answer(b"content", headers=OF_STORE)),
        ("read", Answer(b"content", headers={"E-Tag": '"t"'})),
        ("remove", Answer(b"{}", headers=OF_STORE)),
        ("uploads", Answer(LISTING)),
        ("uploads", Answer(LISTING.replace(b"<Name>", b"<IsTruncated>true</IsTruncated><Name>"))),
    ],
)
def test_answers_that_only_a_store_gives_are_taken(network: Network, name: str, other: Answer) -> None:
    """Stores and proxies that leave out an entity tag, and stores without the list of uploads."""
    method, word, call = CALLS[name]
    network.replace(method, word, other)
    assert call() in (None, [], b"content")


def test_after_a_removal_without_an_answer_each_object_is_removed(network: Network) -> None:
    """Alibaba Cloud OSS gives no body after a quiet removal."""
    network.replace("POST", "delete", Answer())
    storage(retry_seconds=5).removal.remove_all(KEYS)
    assert network.calls == ["POST", *["DELETE"] * len(KEYS)]


def test_a_call_is_repeated_after_a_page(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(_: float) -> bool:
        network.replace("PUT", "", Answer(headers=TAG))
        return False

    network.replace("PUT", "", Answer(b"<html/>"))
    client = storage(retry_seconds=60)._client
    monkeypatch.setattr(client.stopped, "wait", pause)
    client._put_object("bucket", "key", b"content")
    assert network.calls == ["PUT", "PUT"]


@pytest.mark.parametrize("read", [ObjectStore.read, lambda store, key: list(store.chunks(key, 9))])
def test_only_a_missing_object_is_read_as_no_file(
    network: Network, read: Callable[[ObjectStore, str], object]
) -> None:
    network.replace("GET", "", Answer(error_document("NoSuchKey"), 404))
    with pytest.raises(Rejected) as raised:
        read(storage(), "key")
    assert raised.value.code == "no_file"
    network.replace("GET", "", Answer(error_document("InvalidRequest"), 400))
    with pytest.raises(Retryable):
        read(storage(), "key")


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchVersion"])
def test_an_object_that_does_not_exist_can_be_removed(network: Network, code: str) -> None:
    """Some stores answer with 404."""
    network.replace("DELETE", "", Answer(error_document(code), 404))
    store = storage()
    store.removal.remove(KEYS[0])
    store.removal.remove_all(KEYS[:2])
    store.removal.remove_listed(ListedObject(KEYS[0], JOB, 1, datetime.now(UTC)))
    session().remove("f")
    assert network.calls == ["DELETE"] * 5
    network.replace("DELETE", "", Answer(error_document("NoSuchBucket"), 404))
    with pytest.raises(NeedsOperator):
        store.removal.remove(KEYS[0])


def test_a_conflict_of_a_head_is_an_outage(network: Network) -> None:
    """The client library cannot read this answer."""
    network.replace("HEAD", "", Answer(status=409))
    with pytest.raises(Outage):
        storage().exists("key")
