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

_EMPTY = ""

_RESULTS: dict[tuple[str, str], Mapping[str, str | None]] = {
    (HTTPMethod.GET, "list-type"): {"ListBucketResult": "Name"},
    # A store without the call ignores its name, and lists the objects. The library reads that as no uploads.
    (HTTPMethod.GET, "uploads"): {"ListMultipartUploadsResult": None, "ListBucketResult": "Name"},
    (HTTPMethod.POST, "uploads"): {"InitiateMultipartUploadResult": "UploadId"},
    # Alibaba Cloud OSS answers a quiet removal without a body. The library does not read that: ParseError.
    (HTTPMethod.POST, "delete"): {"DeleteResult": None, _EMPTY: None},
}
"""By method and query: the roots that an answer can have, each with the element that it must have."""

_TAGS = ("etag", "e-tag")
"""The headers of an entity tag. Filen S3 sends the second one."""

_OF_STORES, _OF_PROXIES = "x-amz-", ("x-amz-cf-", "x-amz-apigw-")
"""How headers begin that only stores send, and those that CloudFront and API Gateway add to any answer."""

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
        is_copy = COPY_SOURCE in headers
        document = None
        if has_body and method != HTTPMethod.HEAD:
            can_be_text = method == HTTPMethod.DELETE or (method == HTTPMethod.PUT and not is_copy)
            document = _document(answer, can_be_text=can_be_text)
        for name in query:
            if (method, name) in _RESULTS:
                _check_result(answer, document, _RESULTS[method, name])
        if object_name is None:
            return answer
        if method == HTTPMethod.PUT:
            _check_written(answer, document, is_copy=is_copy, is_part="partNumber" in query)
        elif method in (HTTPMethod.GET, HTTPMethod.HEAD):
            _check_object(answer)
    except BaseException:
        answer.close()
        raise
    return answer


def _document(answer: Any, *, can_be_text: bool) -> Element | None:
    """Return the root of the body; ``None`` if there is no body, as in the answers of most calls.

    ``can_be_text``: a store can answer this call with a text, such as ``OK``. The result is ``None`` then, if
    the headers are those of a store. A text that begins as XML is a page, or was cut.
    """
    data = answer.data or b""
    text = None
    try:
        text = data.decode().strip()
        document = ElementTree.fromstring(text) if text else None  # noqa: S314 # the deployment's own store
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        if text and can_be_text and not text.startswith(("<", "\ufeff")) and _is_of_store(answer):
            return None
        shown = data[:_SHOWN].decode(errors="replace")
        raise _foreign(f"its body is no XML: {shown}", answer) from error
    if document is None:
        return None
    root = _tag(document)
    if root == "Error":
        code, message, resource, request, host = (document.findtext(f"{{*}}{name}") for name in _OF_ERROR)
        # By name: older versions of the library have another order.
        raise S3Error(
            response=answer, code=code, message=message, resource=resource, request_id=request, host_id=host
        )
    if root.lower() == "html":
        raise _foreign("its body is a page", answer)
    return document


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _check_result(answer: Any, document: Element | None, roots: Mapping[str, str | None]) -> None:
    root = _EMPTY if document is None else _tag(document)
    if root not in roots:
        found = f"<{root[:_SHOWN]}>" if root else "empty"
        raise _foreign(f"its body is {found} instead of <{next(iter(roots))}>", answer)
    element = roots[root]
    if document is not None and element is not None and not document.findtext(f"{{*}}{element}"):
        raise _foreign(f"its body has no <{element}>", answer)


def _check_written(answer: Any, document: Element | None, *, is_copy: bool, is_part: bool) -> None:
    """Check that the answer has the entity tag, by which stores confirm an object or a part.

    An object needs none where other headers prove that the answer is that of a store. A part does: its upload
    is completed with the tag. So does a copy, because a store that ignores its header writes an empty object.
    """
    if is_copy:
        tag = None if document is None else document.findtext("{*}ETag")
    else:
        tag = answer.headers.get("etag")
    if not tag and (is_copy or is_part or not _is_of_object(answer)):
        raise _foreign("it has no entity tag", answer)


def _check_object(answer: Any) -> None:
    """Check that the headers are those of an object. Some proxies remove the entity tag."""
    if not _is_of_object(answer):
        raise _foreign("it has no entity tag", answer)


def _is_of_object(answer: Any) -> bool:
    return any(answer.headers.get(name) for name in _TAGS) or _is_of_store(answer)


def _is_of_store(answer: Any) -> bool:
    """Return whether the answer has headers that only stores send."""
    names = [name.lower() for name in answer.headers]
    return any(name.startswith(_OF_STORES) and not name.startswith(_OF_PROXIES) for name in names)


def _foreign(why: str, answer: Any) -> ForeignAnswer:
    kind = answer.headers.get("content-type")
    return ForeignAnswer(f"the answer is not one of S3: {why} (status {answer.status}, Content-Type {kind})")
