"""Destinations of the datasets file: what it can say, what is refused, who can use them, and paths."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.datasets.caller import Caller
from stream_app.datasets.destination_paths import FIELDS, MAX_FILE_NAME, JobFacts, PathPattern, clean
from stream_app.datasets.destinations import KINDS, S3Destination, SftpDestination, find_destination, roles_of
from stream_app.datasets.file import DatasetsFileError, load_datasets
from streaming_exporter.errors import Rejected
from tests.documents import BLOCKS, ROOT

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4Y1NkTtCZ4rkX8m0l0k8m1o1bM7T2Jp2yQv0y0m0aA"
WHOLE = f"""
[datasets.orders]
table = "orders"

[destinations.lake]
kind = "s3"
label = "Data lake"
labels = {{ de = "Datensee" }}
endpoint = "https://s3.eu-central-1.amazonaws.com"
region = "eu-central-1"
bucket = "acme-lake"
prefix = "exports"
path = "{{dataset}}/date={{window_date}}/{{job_id}}-{{file_name}}"
manifest = "always"
manifest_path = "_manifests/{{job_id}}.json"
access_key_env = "LAKE_KEY"
secret_key_file = "secrets/lake"
path_style = true
sse = "kms"
sse_kms_key = "alias/lake"
roles = ["partner"]
users = ["ann"]
datasets = ["orders"]

[destinations.acme]
kind = "sftp"
host = "sftp.acme.example"
port = 2222
user = "exports"
private_key_env = "ACME_KEY"
passphrase_env = "ACME_PASSPHRASE"
host_key = ["{KEY}", "{KEY} second"]
prefix = "/upload"
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(WHOLE)
    content = load_datasets(path)
    lake, acme = content.destinations["lake"], content.destinations["acme"]
    assert isinstance(lake, S3Destination)
    assert isinstance(acme, SftpDestination)
    assert lake.secret_key_file == tmp_path / "secrets/lake"
    assert acme.host_key == (KEY, f"{KEY} second")
    assert acme.path == "{dataset}/{date}/{job_id}/{file_name}"


S3 = 'kind = "s3"\nbucket = "acme"\n'
SFTP = f'kind = "sftp"\nhost = "h"\nuser = "u"\npassword_env = "P"\nhost_key = "{KEY}"\n'


@pytest.mark.parametrize(
    ("entry", "place", "text"),
    [
        ("", "kind", "the key is missing; allowed: s3, sftp"),
        ('kind = "ftp"', "kind", "there is no kind 'ftp'; allowed: s3, sftp"),
        ('kind = "s3"', "bucket", "the key is missing"),
        (S3 + 'secret_key = "hunter2"', "secret_key", "a secret must not be in the file"),
        (S3 + 'secret_key_env = "hunter 2"', "secret_key_env", "(the value is not shown)"),
        (S3 + 'access_key_env = "A"', "", "access key and secret key belong together"),
        (S3 + 'sse_kms_key = "k"', "", 'sse_kms_key needs sse = "kms"'),
        (S3 + 'path = "{dataset}"', "path", "it needs {file_name} or {number}"),
        (S3 + 'path = "{file_name}/{datset}"', "path", "there is no field {datset}; allowed: dataset, name"),
        (S3 + 'path = "{date:%Y}/{file_name}"', "path", "there is no field {date:%Y}"),
        (S3 + 'path = "../{file_name}"', "path", "it has an empty part, . or .."),
        (S3 + 'path = "/{file_name}"', "path", "it has an empty part, . or .."),
        (S3 + 'path = "a//{file_name}"', "path", "it has an empty part, . or .."),
        (S3 + 'path = "{file_name"', "path", "a brace is missing"),
        (S3 + 'prefix = "a/../b"', "prefix", "it has an empty part, . or .."),
        (S3 + 'datasets = ["order"]', "datasets.0", "no dataset or bundle 'order'; did you mean orders?"),
        (S3 + 'endpoint = "https://h/path"', "endpoint", "it has a path"),
        (S3 + 'host = "h"', "host", "there is no key 'host'"),
        (SFTP + 'password = "hunter2"', "password", "a secret must not be in the file"),
        (SFTP + 'known_hosts = "k"', "", "exactly one of host_key and known_hosts"),
        (SFTP.replace(KEY, "hunter2"), "host_key.0", "it is not a public host key (it is not shown)"),
        (SFTP.replace(f'host_key = "{KEY}"\n', ""), "", "an unknown server is never trusted"),
        (SFTP.replace('password_env = "P"\n', ""), "", "it has no secret"),
        (SFTP + 'passphrase_env = "P"', "", "a passphrase needs private_key_env or private_key_file"),
        (SFTP + "port = 70000", "port", "70000"),
    ],
    ids=range(25),
)
def test_a_wrong_entry_is_one_fault_with_its_place(tmp_path: Path, entry: str, place: str, text: str) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(f'[datasets.orders]\ntable = "orders"\n[destinations.acme]\n{entry}')
    with pytest.raises(DatasetsFileError) as caught:
        load_datasets(path)
    (fault,) = caught.value.faults
    assert ".".join(map(str, fault.place)) == f"destinations.acme.{place}".rstrip(".")
    assert text in fault.text
    assert "hunter" not in str(caught.value)


def bucket(name: str, **values: Any) -> S3Destination:
    return S3Destination(name=name, kind="s3", bucket="acme", **values)


def test_rights() -> None:
    places = {
        item.name: item
        for item in (
            bucket("free"),
            bucket("partners", roles=("partner",)),
            bucket("ann", users=("ann",)),
            bucket("both", roles=("partner",), users=("ann",)),
            bucket("orders", datasets=("orders",)),
        )
    }

    def usable(caller: Caller, dataset: str = "ledger") -> set[str]:
        return {name for name, item in places.items() if item.allows(caller, dataset)}

    assert usable(Caller("bob")) == {"free"}
    assert usable(Caller("bob"), "orders") == {"free", "orders"}
    assert usable(Caller("ann")) == {"free", "ann", "both"}
    assert usable(Caller("bob", frozenset({"partner"}))) == {"free", "partners", "both"}
    assert usable(Caller("bob", frozenset({"exports:admin"}))) == {"free", "partners", "both"}
    assert roles_of(places["both"]) == {"partner", "exports:admin"}
    assert roles_of(places["ann"]) == roles_of(None) == frozenset()
    texts = []
    for name in ("nothing", "ann"):
        with pytest.raises(Rejected) as caught:
            find_destination(places, name, Caller("bob"), "ledger")
        assert caught.value.code == "unknown_destination"
        texts.append(str(caught.value).replace(name, "X"))
    assert texts[0] == texts[1]
    assert texts[0].endswith("allowed: free")


FACTS = JobFacts(
    job_id="4f1c7a52",
    dataset="ledger",
    name="Ledger: October",
    user="../../etc",
    format="csv",
    schedule=None,
    moment=datetime(2026, 11, 26, 23, 30, 5, tzinfo=UTC),
    zone="Europe/Berlin",
    window_from=datetime(2026, 11, 24, 23, tzinfo=UTC),
)


def test_each_field_has_its_value() -> None:
    pattern = PathPattern.parse("/".join(f"{name}={{{name}}}" for name in FIELDS))
    path = pattern.path(FACTS, file_name="ledger-00002.csv.gz", number=2)
    assert path.split("/") == [
        "dataset=ledger",
        "name=Ledger%3A October",
        "date=2026-11-27",
        "year=2026",
        "month=11",
        "day=27",
        "time=003005",
        "window_date=2026-11-25",
        "job_id=4f1c7a52",
        "schedule=none",
        "user=%2E.%2F..%2Fetc",
        "file_name=ledger-00002.csv.gz",
        "number=2",
        "extension=csv.gz",
        "format=csv",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{dataset}/{number}.{extension}", True),
        ("{number}.{extension}", True),
        ("{dataset}-v2-{number}", True),
        ("{dataset}/{file_name}", True),
        ("{dataset}{number}.{extension}", False),
        ("{name}1{number}.{extension}", False),
    ],
)
def test_a_number_behind_a_value_or_a_digit_is_not_told_from_it(pattern: str, expected: bool) -> None:
    assert PathPattern.parse(pattern).tells_numbers is expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "UTC"])
def test_runs_of_different_minutes_have_different_times_also_where_clocks_go_back(zone: str) -> None:
    """Clocks go back by an hour, by half an hour, and over midnight."""
    pattern = PathPattern.parse("{date}/{time}-{number}.{extension}")
    half_hour = timedelta(minutes=30)
    year = [datetime(2026, 1, 1, tzinfo=UTC) + half_hour * step for step in range(365 * 48)]
    offsets = [moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in year]
    changes = [step for step in range(1, len(year)) if offsets[step] != offsets[step - 1]]
    assert len(changes) == (0 if zone == "UTC" else 2)
    moments = [moment for step in changes or [48] for moment in year[step - 48 : step + 48]]
    paths = [
        pattern.path(replace(FACTS, zone=zone, moment=moment), file_name="a.csv", number=1)
        for moment in moments
    ]
    assert len(set(paths)) == len(moments)
    repeated = [path for path in paths if "b-" in path]
    assert len(repeated) == {"UTC": 0, "Australia/Lord_Howe": 1}.get(zone, 2)
    if zone == "Europe/Berlin":
        assert repeated == ["2026-10-25/020000b-1.csv", "2026-10-25/023000b-1.csv"]


@given(st.text(), st.text())
@example("..", ".")
@example("a/b", "a\\b")
@example("\x00", "\ud800")
@example("x" * 300, "x" * 301)
@example("a.", "a ")
def test_a_value_cannot_leave_its_place_and_no_two_values_become_the_same(one: str, other: str) -> None:
    pattern = PathPattern.parse("{user}/{name}/{file_name}")
    facts = JobFacts("1", one, other, one, "csv", other, FACTS.moment, "UTC")
    parts = pattern.path(facts, file_name=one or "f", number=1).split("/")
    assert len(parts) == 3
    for part in parts:
        assert part not in ("", ".", "..")
        assert not part.startswith(".")
        assert not re.search(r"[\x00-\x1f\x7f\\]", part)
        assert len(part.encode()) <= MAX_FILE_NAME
    storable = [text.encode(errors="replace") for text in (one, other)]
    if storable[0] != storable[1] and "_" not in (one, other):
        assert clean(one) != clean(other)


def test_the_example_of_the_document_is_valid(tmp_path: Path) -> None:
    (block,) = [
        item for item in BLOCKS if item.document.name == "destinations.md" and item.language == "toml"
    ]
    path = tmp_path / "datasets.toml"
    path.write_text('[datasets.ledger]\ntable = "ledger"\n' + block.text)
    assert list(load_datasets(path).destinations) == ["lake", "archive", "acme"]


def test_every_key_and_field_is_documented() -> None:
    text = (ROOT / "docs" / "destinations.md").read_text("utf-8")
    keys = {key for model in KINDS.values() for key in model.model_fields} - {"name"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text and not key.endswith("_file")] == []
    assert [name for name in FIELDS if f"`{name}`" not in text] == []
