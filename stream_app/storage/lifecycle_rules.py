"""Lifecycle rules of the bucket, by which the store removes old files and uploads that the service left.

The rules of a bucket are one document. This module changes its XML and not objects of the client library,
because these lose what the library does not know, and without a condition a rule applies to more objects.
"""

import hashlib
import math
from base64 import b64encode
from collections.abc import Sequence
from datetime import timedelta
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import structlog
from minio import Minio
from minio.error import S3Error

from stream_app.storage.errors import STORE_ERRORS, exception_for
from stream_app.storage.listing import ATTEMPTS_PREFIX

log = structlog.get_logger(__name__)

FILES, UPLOADS = "exporter-files", "exporter-uploads"

S3 = "http://s3.amazonaws.com/doc/2006-03-01/"

OF_TRANSITIONS = "x-amz-transition-default-minimum-object-size"
"""The header with the part of the rules that is not in the document. A call without it resets it."""


def rule_names(prefix: str) -> tuple[str, str]:
    """Return the names of the two rules for a folder. They differ from those of other deployments."""
    folder = prefix.removesuffix(ATTEMPTS_PREFIX).strip("/")
    return (f"{FILES}:{folder}", f"{UPLOADS}:{folder}") if folder else (FILES, UPLOADS)


def set_lifecycle_rules(
    client: Minio,
    bucket: str,
    *,
    files_after: timedelta,
    uploads_after: timedelta,
    prefix: str = ATTEMPTS_PREFIX,
) -> bool:
    """Set the rules for files and unfinished uploads below ``prefix``. Other rules stay as they are.

    Nothing is written if the two rules are set already.

    Args:
        client: the client of the store.
        bucket: name of the bucket.
        files_after: age at which the store removes files, rounded up to days.
        uploads_after: age at which the store aborts unfinished uploads, rounded up to days.
        prefix: the folder of this deployment.

    Returns:
        Whether the rules are set. If not, a warning is logged.
    """
    names = rule_names(prefix)
    try:
        document, headers = _read(client, bucket)
        others = [rule for rule in document if _name(rule) not in names]
        # AWS refuses a document in which only some rules have their prefix in a filter.
        in_filter = not any(rule.find("Prefix") is not None for rule in others)
        rules = [
            _rule(names[0], f"{prefix}/", ("Expiration", "Days", files_after), in_filter=in_filter),
            _rule(
                names[1],
                f"{prefix}/",
                ("AbortIncompleteMultipartUpload", "DaysAfterInitiation", uploads_after),
                in_filter=in_filter,
            ),
        ]
        before = [rule for rule in document if _name(rule) in names]
        if _same(before, rules):
            return True
        try:
            _write(client, bucket, headers, document, [*others, *rules])
        except S3Error:  # a store that does not support both kinds
            if not _same(before, rules[:1]):
                _write(client, bucket, headers, document, [*others, rules[0]])
    except (*STORE_ERRORS, ValueError, LookupError) as error:
        code = error.code if isinstance(error, S3Error) else type(error).__name__
        text = error.message if isinstance(error, S3Error) else str(exception_for(error))
        log.warning("bucket.lifecycle_rules_refused", bucket=bucket, code=code, error=text)
        return False
    return True


def _read(client: Minio, bucket: str) -> tuple[Element, dict[str, str]]:
    """Return the rules of the bucket, and the headers with which they are written."""
    try:
        answer = client._execute("GET", bucket, query_params={"lifecycle": ""})
    except S3Error as error:
        if error.code != "NoSuchLifecycleConfiguration":
            raise
        return Element("LifecycleConfiguration", {"xmlns": S3}), {}
    document = ElementTree.fromstring(answer.data)  # noqa: S314 # the deployment's own store
    namespace = document.tag[1:].partition("}")[0] if document.tag.startswith("{") else ""
    for element in document.iter():
        element.tag = element.tag.removeprefix(f"{{{namespace}}}")
    if document.tag != "LifecycleConfiguration":
        raise ValueError(f"the store answered with <{document.tag}> instead of lifecycle rules")
    document.set("xmlns", namespace or S3)
    sizes = answer.headers.get(OF_TRANSITIONS)
    return document, {OF_TRANSITIONS: sizes} if sizes else {}


def _write(
    client: Minio, bucket: str, headers: dict[str, str], document: Element, rules: Sequence[Element]
) -> None:
    written = Element(document.tag, document.attrib)
    written.extend(rules)
    body = ElementTree.tostring(written)
    md5 = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    client._execute(
        "PUT",
        bucket,
        body=body,
        headers={"Content-MD5": md5, **headers},
        query_params={"lifecycle": ""},
    )


def _rule(name: str, prefix: str, action: tuple[str, str, timedelta], *, in_filter: bool) -> Element:
    rule = Element("Rule")
    SubElement(rule, "ID").text = name
    SubElement(SubElement(rule, "Filter") if in_filter else rule, "Prefix").text = prefix
    SubElement(rule, "Status").text = "Enabled"
    kind, days, age = action
    SubElement(SubElement(rule, kind), days).text = str(math.ceil(age / timedelta(days=1)))
    return rule


def _name(rule: Element) -> str | None:
    return rule.findtext("ID") if rule.tag == "Rule" else None


def _same(before: Sequence[Element], rules: Sequence[Element]) -> bool:
    return sorted(map(_values, before)) == sorted(map(_values, rules))


def _values(rule: Element) -> list[tuple[str, str]]:
    """Return what a rule says, whatever the order of its elements and the space between them."""
    leaves = [(parent.tag, leaf) for parent in rule.iter() for leaf in parent if not len(leaf)]
    return sorted((f"{parent}/{leaf.tag}", (leaf.text or "").strip()) for parent, leaf in leaves)
