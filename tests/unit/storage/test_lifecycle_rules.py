"""The lifecycle rules of a bucket that others share: their rules stay as they are."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from stream_app.storage.lifecycle_rules import OF_TRANSITIONS, S3, set_lifecycle_rules
from tests.rows import each_row

OWN = ("exporter-files", "exporter-uploads")


def refused(code: str) -> S3Error:
    return S3Error(cast("Any", SimpleNamespace(status=400)), code, "no", None, None, None)


class Bucket(Minio):
    """A bucket that keeps the document it receives."""

    def __init__(self, document: str | None, headers: dict[str, str] | None = None) -> None:
        super().__init__("store")
        self.document = document
        self.headers = headers or {}
        self.writes: list[tuple[str, dict[str, str]]] = []
        self.refuses_uploads = False
        self.error: Exception | None = None

    def _execute(
        self,
        method: str,
        bucket_name: str | None = None,
        object_name: str | None = None,
        body: bytes | None = None,
        headers: Any = None,
        query_params: Any = None,
        preload_content: bool = True,
        no_body_trace: bool = False,
    ) -> Any:
        assert bucket_name == "shared"
        assert query_params == {"lifecycle": ""}
        if self.error:
            raise self.error
        if method == "GET":
            if self.document is None:
                raise refused("NoSuchLifecycleConfiguration")
            return SimpleNamespace(data=self.document.encode(), headers=self.headers)
        assert method == "PUT"
        assert body
        if self.refuses_uploads and b"AbortIncomplete" in body:
            raise refused("NotImplemented")
        self.document = body.decode()
        self.writes.append((self.document, headers or {}))
        return SimpleNamespace(data=b"", headers={})

    def set(self, days: int = 14) -> bool:
        return set_lifecycle_rules(
            self,
            "shared",
            files_after=timedelta(days=days),
            uploads_after=timedelta(hours=25),
        )

    def rules(self) -> list[ElementTree.Element]:
        return list(ElementTree.fromstring(self.document or ""))


def canonical(rule: ElementTree.Element) -> str:
    return ElementTree.canonicalize(ElementTree.tostring(rule), strip_text=True)


def name(rule: ElementTree.Element) -> str | None:
    return rule.findtext(f"{{{S3}}}ID")


FOREIGN = {
    "size and tag": "<Filter><And><Prefix>data/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>"
    "<ObjectSizeGreaterThan>1000000000</ObjectSizeGreaterThan></And></Filter>"
    "<Expiration><Days>1</Days></Expiration>",
    "not": "<Filter><And><Prefix>x/</Prefix><Not><Prefix>x/keep/</Prefix></Not></And></Filter>"
    "<Expiration><Days>1</Days></Expiration>",
    "two transitions": "<Filter><Prefix>t/</Prefix></Filter>"
    "<Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition>"
    "<Transition><Days>90</Days><StorageClass>GLACIER</StorageClass></Transition>",
    "all versions": "<Filter><Prefix>v/</Prefix></Filter><Expiration><Days>3</Days>"
    "<ExpiredObjectAllVersions>true</ExpiredObjectAllVersions></Expiration>",
    "whole bucket": "<Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>"
    "</AbortIncompleteMultipartUpload>",
    "size": "<Filter><ObjectSizeLessThan>5</ObjectSizeLessThan></Filter>"
    "<Expiration><Days>1</Days></Expiration>",
    "not alone": "<Filter><Not><Prefix>p/</Prefix></Not></Filter><Expiration><Days>1</Days></Expiration>",
    "delete markers": "<Filter><Prefix>d/</Prefix></Filter>"
    "<DelMarkerExpiration><Days>1</Days></DelMarkerExpiration>",
    "first version": "<Prefix>tmp/</Prefix><Expiration><Days>1</Days></Expiration>",
    "unknown": '<Filter><Prefix>u/</Prefix></Filter><New xmlns="urn:other" a="1"><Thing/>text</New>',
}


@each_row("start", [f'<LifecycleConfiguration xmlns="{S3}">', "<LifecycleConfiguration>"])
@each_row("rule", FOREIGN)
def test_rules_of_others_stay_as_they_are(rule: str, start: str) -> None:
    theirs = (
        f"\n  <Rule><ID>theirs \u00e9</ID>{FOREIGN[rule]}<Status>Enabled</Status></Rule>\n  "
        f"<Rule>{FOREIGN[rule]}<Status>Disabled</Status></Rule></LifecycleConfiguration>"
    )
    bucket = Bucket(f'<?xml version="1.0" encoding="UTF-8"?>\n{start}{theirs}')
    expected = ElementTree.fromstring(f'<LifecycleConfiguration xmlns="{S3}">{theirs}')
    for _ in range(3):
        assert bucket.set()
    assert len(bucket.writes) == 1, "rules that are set are not written again"
    found = bucket.rules()
    assert [canonical(rule) for rule in found if name(rule) not in OWN] == [canonical(r) for r in expected]
    assert {name(rule) for rule in found} >= set(OWN)


def test_only_the_own_rules_change() -> None:
    bucket = Bucket(None)
    assert bucket.set(14)
    assert bucket.set(14)
    assert bucket.set(30)
    assert len(bucket.writes) == 2
    namespaces = {"s3": S3}
    assert {
        (
            name(rule),
            rule.findtext("s3:Filter/s3:Prefix", namespaces=namespaces),
            rule.findtext("s3:Status", namespaces=namespaces),
            rule.findtext("s3:Expiration/s3:Days", namespaces=namespaces),
            rule.findtext("s3:AbortIncompleteMultipartUpload/s3:DaysAfterInitiation", namespaces=namespaces),
        )
        for rule in bucket.rules()
    } == {
        ("exporter-files", "jobs/", "Enabled", "30", None),
        ("exporter-uploads", "jobs/", "Enabled", None, "2"),
    }


def test_prefixes_are_where_the_others_have_them() -> None:
    """AWS refuses a document that mixes both versions."""
    bucket = Bucket(
        f'<LifecycleConfiguration xmlns="{S3}"><Rule><ID>theirs</ID>{FOREIGN["first version"]}'
        "<Status>Enabled</Status></Rule></LifecycleConfiguration>"
    )
    assert bucket.set()
    assert [rule.findtext(f"{{{S3}}}Prefix") for rule in bucket.rules()] == ["tmp/", "jobs/", "jobs/"]
    assert all(rule.find(f"{{{S3}}}Filter") is None for rule in bucket.rules())


def test_the_least_size_of_transitions_is_kept() -> None:
    bucket = Bucket(f'<LifecycleConfiguration xmlns="{S3}"/>', {OF_TRANSITIONS: "varies_by_storage_class"})
    assert bucket.set()
    ((_, headers),) = bucket.writes
    assert headers[OF_TRANSITIONS] == "varies_by_storage_class"
    assert headers["Content-MD5"]


def test_a_store_without_rules_for_uploads_has_the_other() -> None:
    bucket = Bucket(None)
    bucket.refuses_uploads = True
    for _ in range(2):
        assert bucket.set()
    assert [name(rule) for rule in bucket.rules()] == ["exporter-files"]
    assert len(bucket.writes) == 1


@pytest.mark.parametrize(
    "error",
    [
        refused("AccessDenied"),
        ValueError("neither prefix nor tag"),
        ElementTree.ParseError("no element found"),
        urllib3.exceptions.HTTPError("broken"),
        LookupError("unknown encoding"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer_of_the_store_is_an_error_of_the_caller(error: Exception) -> None:
    """The cleaner has more to do: what it must remove is not less because the rules cannot be set."""
    bucket = Bucket(None)
    bucket.error = error
    assert not bucket.set()


@pytest.mark.parametrize("document", ["", "<html>", "<p>sign in</p>"])
def test_what_is_no_document_of_rules_is_not_written_back(document: str) -> None:
    bucket = Bucket(document)
    assert not bucket.set()
    assert bucket.writes == []
