"""Bundles through the whole pipeline: one file with all datasets, in one snapshot."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import fastexcel
import openpyxl
import pyrage
import pytest
import pyzipper
from pypdf import PdfReader

from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.transactions import new_snapshot
from stream_app.exports.task import ExportLimits
from stream_app.storage import parts
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import PEOPLE, RunBundle, bundle_of, exported_by, opened

Build = Callable[..., Exporter]
AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)


FILES = [
    *((name, "none") for name in sorted(FORMATS) if name != "excel"),
    ("csv", "gzip"),
    ("csv", "zstd"),
    ("json", "gzip"),
]


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives all snapshots one time, which some formats write into their files."""

    async def begun_at(*arguments: Any) -> Any:
        snapshot = await new_snapshot(*arguments)
        snapshot.as_of = AS_OF
        return snapshot

    monkeypatch.setattr("stream_app.exports.sources.source.new_snapshot", begun_at)


def comparable(name: str, content: bytes) -> object:
    """Return what is the same in each export. A report says when it was made, and numbers its objects."""
    if name != "pdf":
        return content
    texts = [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]
    return [re.sub(r"generated \S+ \S+", "", text) for text in texts]


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(("name", "compression"), FILES)
async def test_each_file_of_an_archive_is_that_of_the_single_export(
    name: str,
    compression: str,
    members: tuple[Dataset, ...],
    run_bundle: RunBundle,
    exporter_of: Build,
    storage: ObjectStore,
) -> None:
    options = {"compression": compression, "title": "Report"}
    exported = await run_bundle(bundle_of(*members), name, options=options)
    archive = opened(exported)
    manifest = json.loads(archive.read("manifest.json"))
    names = [file["file_name"] for file in manifest["files"]]
    assert archive.namelist() == [*names, "README.txt", "manifest.json"]
    assert [file["rows"] for file in manifest["files"]] == [200, 40, 0]
    assert exported.data.row_count == manifest["rows"] == 240
    data = exported.data
    assert (data.file_size, data.content_type) == (len(exported.content), "application/zip")
    assert data.file_name == "everything-2026-03-01.zip"
    for member, file in zip(members, manifest["files"], strict=True):
        content = archive.read(file["file_name"])
        single = await exported_by(exporter_of(member), storage, member, name, scope="own", options=options)
        assert file["file_name"] == single.data.file_name
        assert comparable(name, content) == comparable(name, single.content)
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert file["content_type"] == single.data.content_type


async def test_a_workbook_has_an_overview_and_the_sheets_of_each_dataset(
    members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    exported = await run_bundle(
        bundle_of(*members, label="Everything", labels={"de": "Alles"}),
        "excel",
        {"formats": {"excel": ExcelFormat(last_row=150)}},
        options={"headers": "labels", "language": "de", "locale": "de-DE", "timezone": "Europe/Berlin"},
        filters={"people": {"id": {"gt": 30}}},
    )
    assert exported.data.file_name.endswith(".xlsx")
    book = openpyxl.load_workbook(io.BytesIO(exported.content))
    assert book.sheetnames == ["Übersicht", "people", "people (2)", "amounts", "nothing"]
    lines = list(book["Übersicht"].iter_rows(values_only=True))
    assert lines[0][0] == "Alles"
    assert lines[2] == ("Datensatz", "Blätter", "Zeilen", "Spalten", "Stand", "Zeitzone", "Filter")
    assert [line[:4] for line in lines[3:]] == [
        ("people", "people, people (2)", 180, 4),
        ("amounts", "amounts", 40, 5),
        ("nothing", "nothing", 0, 3),
    ]
    assert lines[3][5:] == ("Europe/Berlin", "Filter: id > 30")
    first, second = (list(book[name].iter_rows(values_only=True)) for name in ("people", "people (2)"))
    assert (len(first), len(second)) == (150, 32)
    assert first[0] == second[0] == ("id", "user_id", "name", "since")
    ids = [row[0] for row in (*first[1:], *second[1:])]
    assert ids == [number for number in range(31, PEOPLE + 1) if number % 3]
    amounts = book["amounts"]
    assert (amounts["E2"].is_date, amounts["D2"].value, amounts["D3"].value) == (True, False, True)
    assert amounts.auto_filter.ref == "A1:E41"
    assert book["nothing"]["A1"].value == "id"
    assert exported.data.manifest["files"][0]["sheets"] == ["people", "people (2)"]


async def test_other_programs_read_the_workbook(members: tuple[Dataset, ...], run_bundle: RunBundle) -> None:
    exported = await run_bundle(bundle_of(*members), "excel")
    book = fastexcel.read_excel(exported.content)
    assert book.sheet_names == ["Overview", "people", "amounts", "nothing"]
    assert [book.load_sheet(name).height for name in book.sheet_names[1:]] == [200, 40, 0]


class OnePassword(FilePasswords):
    """The same password for all jobs."""

    def __call__(self, job_id: str) -> str:
        return "secret"


async def test_an_archive_with_a_password_encrypts_its_own_files(
    members: tuple[Dataset, ...], run_bundle: RunBundle, tmp_path: Path
) -> None:
    exported = await run_bundle(
        bundle_of(*members), "csv", {"passwords": lambda: OnePassword(b"")}, encrypt={"zip_password": True}
    )
    assert exported.data.file_name.endswith(".zip")
    assert ".zip.zip" not in exported.data.file_name
    path = tmp_path / "everything.zip"
    path.write_bytes(exported.content)
    with pyzipper.AESZipFile(path) as archive:
        archive.setpassword(b"secret")
        manifest = json.loads(archive.read("manifest.json"))
        for file in manifest["files"]:
            assert hashlib.sha256(archive.read(file["file_name"])).hexdigest() == file["sha256"]
        assert all(item.flag_bits & 1 for item in archive.infolist())


async def test_an_archive_for_holders_of_keys_is_encrypted_as_a_whole(
    members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    key = pyrage.x25519.Identity.generate()
    exported = await run_bundle(bundle_of(*members), "csv", encrypt={"age": [str(key.to_public())]})
    assert exported.data.file_name.endswith(".zip.age")
    assert exported.data.content_type == "application/age"
    with zipfile.ZipFile(io.BytesIO(pyrage.decrypt(exported.content, [key]))) as archive:
        assert archive.testzip() is None
        assert "README.txt" in archive.namelist()


async def test_masks_and_hidden_columns_hold_as_for_a_single_export(
    members: tuple[Dataset, ...], run_bundle: RunBundle, exporter_of: Build, storage: ObjectStore
) -> None:
    people, *others = members
    secret = people.model_copy(
        update={
            "column_settings": {
                "name": ColumnSettings(mask="null", unmasked_for=("staff",)),
                "since": ColumnSettings(roles=("staff",)),
            }
        }
    )
    for claims in ({}, {"roles": ["staff"]}):
        exported = await run_bundle(bundle_of(secret, *others), "csv", claims=claims)
        single = await exported_by(exporter_of(secret), storage, secret, "csv", scope="own", claims=claims)
        file = json.loads(opened(exported).read("manifest.json"))["files"][0]
        assert opened(exported).read(file["file_name"]) == single.content
        assert ("since" in json.dumps(file)) is bool(claims)


async def test_a_filter_of_the_bundle_must_not_reveal_a_column(
    members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    people, *others = members
    secret = people.model_copy(update={"column_settings": {"name": ColumnSettings(roles=("staff",))}})
    bundle = bundle_of(secret, *others, filters={"people": {"name": {"prefix": "Ä"}}})
    with pytest.raises(Rejected) as error:
        await run_bundle(bundle, "csv")
    assert "'people'" in str(error.value)
    assert "name'" not in str(error.value).replace("'people'", "")
    exported = await run_bundle(bundle, "csv", claims={"roles": ["staff"]})
    assert exported.data.row_count == 240


async def test_filters_of_bundle_and_request_both_hold(
    members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    bundle = bundle_of(*members, filters={"people": {"id": {"lte": 30}}, "amounts": {"paid": True}})
    exported = await run_bundle(bundle, "csv", filters={"people": {"since": {"gte": "2026-01-01T20:00:00Z"}}})
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [7, 20, 0]
    assert manifest["files"][0]["filters"] == {"id": {"lte": 30}, "since": {"gte": "2026-01-01T20:00:00Z"}}
    flat = await run_bundle(bundle, "csv", filters={"people.since": {"gte": "2026-01-01T20:00:00Z"}})
    assert flat.data.manifest["files"][0]["filters"] == manifest["files"][0]["filters"]
    with pytest.raises(Rejected, match=r"filters\.people\.id: the bundle limits this column already"):
        await run_bundle(bundle, "csv", filters={"people": {"id": 1}})


@pytest.mark.parametrize(
    ("request_fields", "text"),
    [
        ({"columns": ["id"]}, "columns: bundle 'everything' cannot have it"),
        ({"split": {"rows": 10}}, "split: bundle 'everything' cannot have it"),
        ({"filters": {"ledger": {"id": 1}}}, "has no dataset 'ledger'"),
        ({"filters": {"people": 1}}, "filters.people: the filters of a dataset of a bundle must be"),
        ({"filters": {"people": {"nose": 1}}}, "dataset 'people' of bundle 'everything'"),
        ({"parameters": {"year": 1}}, "no dataset of bundle 'everything' has a parameter 'year'"),
        ({"scope": "team"}, "dataset 'people' of bundle 'everything'"),
    ],
)
async def test_what_a_bundle_cannot_have_is_named(
    request_fields: dict[str, Any], text: str, members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    with pytest.raises(Rejected) as error:
        await run_bundle(bundle_of(*members), "csv", **request_fields)
    assert text in str(error.value)


async def test_limits_of_each_dataset_and_of_the_export_hold(
    members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    people, *others = members
    with pytest.raises(Rejected, match=r"'people' of bundle 'everything': .*more than 199 rows"):
        await run_bundle(bundle_of(people.model_copy(update={"max_rows": 199}), *others), "csv")
    with pytest.raises(Rejected, match="the bundle has more than 239 rows"):
        await run_bundle(bundle_of(*members), "csv", {"limits": ExportLimits(max_rows=239)})
    assert (
        await run_bundle(bundle_of(*members), "csv", {"limits": ExportLimits(max_rows=240)})
    ).data.row_count == 240
    with pytest.raises(Rejected, match="more than 1,000 bytes"):
        await run_bundle(bundle_of(*members), "csv", {"limits": ExportLimits(file_bytes=1000)})


@pytest.fixture
async def beyond_memory(
    database: asyncpg.Connection, schema: str, monkeypatch: pytest.MonkeyPatch
) -> Dataset:
    """A dataset whose file needs a part that is collected on the disk, which has no space at the start."""
    monkeypatch.setattr(parts, "LARGER", ((1, 8),))
    monkeypatch.setattr(parts, "_SIZES", ((parts.PART_SIZE, 1), (8 * parts.PART_SIZE, 9_999)))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    assert parts.largest_file_on(parts.temporary_bytes()) == parts.PART_SIZE
    await database.execute("""
        CREATE TABLE long (id int PRIMARY KEY, v text);
        INSERT INTO long SELECT n, string_agg(sha512(convert_to(n || ' ' || k, 'UTF8'))::text, '')
            FROM generate_series(1, 6_000) AS n, generate_series(1, 25) AS k GROUP BY n
    """)
    return Dataset(name="long", table=f"{schema}.long", order=("id",))


async def test_a_bundle_uses_the_space_that_becomes_free_while_it_is_written(
    beyond_memory: Dataset, run_bundle: RunBundle
) -> None:
    """Its file cannot be divided, so what was free at its start is no limit."""
    exported = await run_bundle(bundle_of(beyond_memory), "csv", scope="all")
    assert exported.data.row_count == 6_000
    assert len(exported.content) > parts.PART_SIZE
    opened(exported)


async def test_a_disk_that_is_full_does_not_end_the_job_of_a_bundle(
    beyond_memory: Dataset, run_bundle: RunBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    with pytest.raises(parts.TemporaryDiskError) as error:
        await run_bundle(bundle_of(beyond_memory), "csv", scope="all")
    assert error.value.code == "temporary_disk"


async def test_the_readme_of_a_subject_access_is_about_the_person(
    members: tuple[Dataset, ...], run_bundle: RunBundle
) -> None:
    bundle = bundle_of(*members, kind="subject_access", label="My data", labels={"de": "Meine Daten"})
    english = opened(await run_bundle(bundle, "csv")).read("README.txt").decode()
    assert english.startswith("My data\n=======\n\nThis archive has all data that is stored about u")
    assert "people: 200 rows" in english
    german = (
        opened(await run_bundle(bundle, "json", options={"language": "de-AT"})).read("README.txt").decode()
    )
    assert german.startswith("Meine Daten\n===========\n\nDieses Archiv enthält alle Daten")
    assert "people: 200 Zeilen" in german
    some = (
        opened(await run_bundle(bundle, "csv", filters={"people": {"id": {"lt": 10}}}))
        .read("README.txt")
        .decode()
    )
    assert "all data" not in some
    assert "not all" in " ".join(some.split())
    with pytest.raises(Rejected, match="about one person"):
        await run_bundle(bundle, "csv", scope="all")
