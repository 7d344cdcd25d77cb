"""Refuses answers with a status of success that are not those of S3, before the client library reads them.

A proxy, a firewall or a sign-in page in front of a store can answer each call with a page and the status 200.
A store can send an error after the status 200. The library takes both for a success, or raises a ValueError.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPMethod
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import urllib3
from minio.error import S3Error

from stream_app.storage.errors import ForeignAnswer

COPY_SOURCE = "x-amz-copy-source"
"""The header of a call that copies an object. Its answer has the entity tag in its body."""

_RESULTS: dict[tuple[str, str], tuple[str, str | None]] = {
    (HTTPMethod.GET, "list-type"): ("ListBucketResult", "Name"),
    (HTTPMethod.GET, "uploads"): ("ListMultipartUploadsResult", None),
    (HTTPMethod.POST, "uploads"): ("InitiateMultipartUploadResult", "UploadId"),
    (HTTPMethod.POST, "delete"): ("DeleteResult", None),
}
"""By method and query: the root of an answer, and the element that it must have."""

_OF_ERROR = ("Code", "Message", "Resource", "RequestId", "HostId")

_SHOWN = 200
"""Characters of a refused answer that are logged."""


@contextmanager
def readable_answer(method: str) -> Iterator[None]:
    """Raise :class:`ForeignAnswer` where the library fails to read the answer of a call.

    It raises a ValueError for a page that is not in UTF-8, and for a HEAD that is answered with 409. The
    headers of a HEAD have nothing of users, so its ValueErrors have no other cause.
    """
    try:
        yield
    except urllib3.exceptions.HTTPError:
        raise  # some of them are ValueErrors too
    except ValueError as error:
        if method == HTTPMethod.HEAD or isinstance(error, UnicodeDecodeError):
            raise ForeignAnswer(f"the answer is not one of S3: it cannot be read ({error})") from error
        raise


def checked_answer(
    answer: Any,
    method: str,
    object_name: str | None,
    query: Mapping[str, Any],
    headers: Mapping[str, Any],
    *,
    has_body: bool,
) -> Any:
    """Return an answer that has a status of success, after its check. A refused one is closed.

    Args:
        answer: the answer.
        method: the method of the call.
        object_name: the key of the object; ``None`` if the call is one of the bucket.
        query: the query of the call.
        headers: the headers of the call.
        has_body: whether the body is read. The content of an object is not.

    Raises:
        S3Error: the body is an error.
        ForeignAnswer: it is no answer of S3 to such a call.
    """
    try:
        document = _document(answer) if has_body and method != HTTPMethod.HEAD else None
        for name in query:
            if (method, name) in _RESULTS:
                _check_result(answer, document, *_RESULTS[method, name])
        if object_name is None:
            return answer
        if method == HTTPMethod.PUT:
            _check_written(answer, document, is_copy=COPY_SOURCE in headers)
        elif method in (HTTPMethod.GET, HTTPMethod.HEAD):
            _check_object(answer)
    except BaseException:
        answer.close()
        raise
    return answer


def _document(answer: Any) -> Element | None:
    """Return the root of the body; ``None`` if there is no body, as in the answers of most calls."""
    data = answer.data or b""
    try:
        text = data.decode().strip()
        document = ElementTree.fromstring(text) if text else None  # noqa: S314 # the deployment's own store
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        shown = data[:_SHOWN].decode(errors="replace")
        raise _foreign(f"its body is no XML: {shown}", answer) from error
    if document is None:
        return None
    root = _tag(document)
    if root == "Error":
        code, message, resource, request, host = (document.findtext(f"{{*}}{name}") for name in _OF_ERROR)
        raise S3Error(answer, code, message, resource, request, host)
    if root.lower() == "html":
        raise _foreign("its body is a page", answer)
    return document


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _check_result(answer: Any, document: Element | None, root: str, element: str | None) -> None:
    if document is None or _tag(document) != root:
        found = "empty" if document is None else f"<{_tag(document)[:_SHOWN]}>"
        raise _foreign(f"its body is {found} instead of <{root}>", answer)
    if element is not None and not document.findtext(f"{{*}}{element}"):
        raise _foreign(f"its body has no <{element}>", answer)


def _check_written(answer: Any, document: Element | None, *, is_copy: bool) -> None:
    """Check that the answer has the entity tag, by which each store confirms an object or a part."""
    if is_copy:
        tag = None if document is None else document.findtext("{*}ETag")
    else:
        tag = answer.headers.get("etag")
    if not tag:
        raise _foreign("it has no entity tag", answer)


def _check_object(answer: Any) -> None:
    """Check that the headers are those of an object. Some proxies remove the entity tag."""
    headers = answer.headers
    if not headers.get("etag") and not any(name.lower().startswith("x-amz-") for name in headers):
        raise _foreign("it has no entity tag", answer)


def _foreign(why: str, answer: Any) -> ForeignAnswer:
    kind = answer.headers.get("content-type")
    return ForeignAnswer(f"the answer is not one of S3: {why} (status {answer.status}, Content-Type {kind})")
