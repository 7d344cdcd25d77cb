"""Bundles through the whole pipeline: one file with all datasets, in one snapshot."""

import asyncio
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import fastexcel
import openpyxl
import pyrage
import pytest
import pyzipper
from pypdf import PdfReader

from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.bundles import exporter as bundles
from stream_app.exports.catalog import Catalog
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.source import Source
from stream_app.exports.source_transactions import begun
from stream_app.exports.task import ExportLimits, ExportProgress
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Exported, exported_by, task_for
from tests.waiting import at_most, until_async

Build = Callable[..., Exporter]
Run = Callable[..., Awaitable[Exported]]
ROWS = 300
AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def members(database: asyncpg.Connection, schema: str) -> tuple[Dataset, ...]:
    """Three tables of different shapes, each with rows of user ``u`` and of others."""
    await database.execute(
        f"""
        CREATE TABLE people (id int PRIMARY KEY, user_id text, name text, since timestamptz);
        INSERT INTO people SELECT n, CASE WHEN n % 3 = 0 THEN 'v' ELSE 'u' END, 'Ä "' || n || E'\\n=1+1',
            '2026-01-01Z'::timestamptz + n * interval '1 hour' FROM generate_series(1, {ROWS}) n;
        CREATE TABLE amounts (id int PRIMARY KEY, user_id text, amount numeric, paid boolean, day date);
        INSERT INTO amounts SELECT n, 'u', n / 7.0, n % 2 = 0, '2026-02-01'::date + n
            FROM generate_series(1, 40) n;
        CREATE TABLE nothing (id int PRIMARY KEY, user_id text, note text);
        """
    )
    return (
        Dataset(name="people", table=f"{schema}.people", owner="user_id", order=("id",), time="since"),
        Dataset(name="amounts", table=f"{schema}.amounts", owner="user_id", order=("id",)),
        Dataset(name="nothing", table=f"{schema}.nothing", owner="user_id", order=("id",)),
    )


def bundle_of(*members: Dataset, **settings: Any) -> Bundle:
    names = [member.name for member in members]
    return Bundle.of(BundleSettings(name="everything", datasets=tuple(names), **settings), members)


@pytest.fixture
def run(exporter_of: Build, storage: ObjectStore) -> Run:
    """Exports a bundle: ``await run(bundle, "csv", scope="own")``."""

    async def run(
        bundle: Bundle, format_name: str, parts: Mapping[str, Any] = {}, **request: Any
    ) -> Exported:
        exporter = exporter_of(bundle, **parts)
        return await exported_by(exporter, storage, bundle, format_name, **{"scope": "own", **request})

    return run


def opened(exported: Exported) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(exported.content))
    assert archive.testzip() is None
    return archive


FILES = [
    (name, compression)
    for name, output in sorted(FORMATS.items())
    if name != "excel"
    for compression in (("none", "gzip", "zstd") if output.compressible else ("none",))
]


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives all snapshots one time, which some formats write into their files."""

    async def begun_at(*arguments: Any) -> Any:
        snapshot = await begun(*arguments)
        snapshot.as_of = AS_OF
        return snapshot

    monkeypatch.setattr("stream_app.exports.source.begun", begun_at)


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
    run: Run,
    exporter_of: Build,
    storage: ObjectStore,
) -> None:
    options = {"compression": compression, "title": "Report"}
    exported = await run(bundle_of(*members), name, options=options)
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
    members: tuple[Dataset, ...], run: Run
) -> None:
    exported = await run(
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
    assert ids == [number for number in range(31, ROWS + 1) if number % 3]
    amounts = book["amounts"]
    assert (amounts["E2"].is_date, amounts["D2"].value, amounts["D3"].value) == (True, False, True)
    assert amounts.auto_filter.ref == "A1:E41"
    assert book["nothing"]["A1"].value == "id"
    assert exported.data.manifest["files"][0]["sheets"] == ["people", "people (2)"]


async def test_other_programs_read_the_workbook(members: tuple[Dataset, ...], run: Run) -> None:
    exported = await run(bundle_of(*members), "excel")
    book = fastexcel.read_excel(exported.content)
    assert book.sheet_names == ["Overview", "people", "amounts", "nothing"]
    assert [book.load_sheet(name).height for name in book.sheet_names[1:]] == [200, 40, 0]


async def test_an_archive_with_a_password_encrypts_its_own_files(
    members: tuple[Dataset, ...], run: Run, tmp_path: Path
) -> None:
    exported = await run(
        bundle_of(*members), "csv", {"passwords": lambda job: "secret"}, encrypt={"zip_password": True}
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
    members: tuple[Dataset, ...], run: Run
) -> None:
    key = pyrage.x25519.Identity.generate()
    exported = await run(bundle_of(*members), "csv", encrypt={"age": [str(key.to_public())]})
    assert exported.data.file_name.endswith(".zip.age")
    assert exported.data.content_type == "application/age"
    with zipfile.ZipFile(io.BytesIO(pyrage.decrypt(exported.content, [key]))) as archive:
        assert archive.testzip() is None
        assert "README.txt" in archive.namelist()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Awaitable[object]]], None]:
    """Runs something while a bundle is exported: after its first dataset, before the others."""

    def install(work: Callable[[], Awaitable[object]]) -> None:
        original, calls = bundles._BundleExport._copy, []

        async def copy(self: Any, snapshot: Any, member: Any, feed: Any) -> None:
            calls.append(member)
            if len(calls) == 2:
                await work()
            await original(self, snapshot, member, feed)

        monkeypatch.setattr(bundles._BundleExport, "_copy", copy)

    return install


async def test_all_datasets_of_a_source_have_the_data_of_one_moment(
    members: tuple[Dataset, ...],
    run: Run,
    database: asyncpg.Connection,
    between: Callable[..., None],
) -> None:
    between(
        lambda: database.execute(
            "INSERT INTO amounts VALUES (1000, 'u', 1, true, NULL);"
            "INSERT INTO nothing VALUES (1, 'u', 'new');"
            "DELETE FROM amounts WHERE id < 10"
        )
    )
    exported = await run(bundle_of(*members), "csv")
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [200, 40, 0]
    names = ["people", "amounts", "nothing"]
    as_of = exported.data.as_of.isoformat()
    assert manifest["snapshots"] == [{"number": 1, "as_of": as_of, "datasets": names}]
    assert "one moment" in opened(exported).read("README.txt").decode()


async def test_a_table_cannot_be_rewritten_before_its_turn(
    members: tuple[Dataset, ...],
    run: Run,
    database: asyncpg.Connection,
    between: Callable[..., None],
) -> None:
    """A table that is truncated after the snapshot would look empty to it."""
    refused = []

    async def truncate() -> None:
        await database.execute("SET lock_timeout = '100ms'")
        try:
            await database.execute("TRUNCATE amounts")
        except asyncpg.LockNotAvailableError as error:
            refused.append(error)
        await database.execute("RESET lock_timeout")

    between(truncate)
    exported = await run(bundle_of(*members), "csv")
    assert exported.data.row_count == 240
    assert refused


async def test_a_table_that_is_filled_again_while_the_export_waits_does_not_look_empty(
    members: tuple[Dataset, ...], run: Run, database: asyncpg.Connection, source_dsn: str
) -> None:
    """A refresh truncates and fills a table in one transaction. The snapshot from before it sees no row."""
    other = await asyncpg.connect(source_dsn)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'amounts'::regclass"
    try:
        refresh = other.transaction()
        await refresh.start()
        schema = await database.fetchval("SELECT current_schema()")
        await other.execute(f'SET LOCAL search_path TO "{schema}"; TRUNCATE amounts')
        await other.execute("INSERT INTO amounts VALUES (1, 'u', 1, true, NULL)")
        exporting = asyncio.ensure_future(run(bundle_of(*members), "csv"))
        await until_async(lambda: database.fetchval(waiting))
        await refresh.commit()
        with pytest.raises(Retryable, match="being changed"):
            await exporting
    finally:
        await other.close()
    manifest = json.loads(opened(await run(bundle_of(*members), "csv")).read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [200, 1, 0]


async def test_datasets_of_several_sources_have_a_snapshot_of_each(
    members: tuple[Dataset, ...], run: Run, settings: Settings
) -> None:
    people, amounts, nothing = members
    crm = Source(settings, connections=2, name="crm")
    default = Source(settings, connections=2)

    class Both:
        def of(self, dataset: Dataset) -> Source:
            return crm if dataset.source == "crm" else default

        def each(self) -> tuple[Source, ...]:
            return default, crm

    bundle = bundle_of(people, amounts.model_copy(update={"source": "crm"}), nothing)
    try:
        exported = await run(bundle, "csv", {"sources": Both(), "catalog": Catalog(Both())})
    finally:
        await crm.close()
        await default.close()
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [item["datasets"] for item in manifest["snapshots"]] == [["people", "nothing"], ["amounts"]]
    assert [file["dataset"] for file in manifest["files"]] == ["people", "nothing", "amounts"]
    assert exported.data.as_of.isoformat() == min(item["as_of"] for item in manifest["snapshots"])
    text = opened(exported).read("README.txt").decode()
    assert "different databases" in text
    assert "crm" not in text + json.dumps(manifest)


@pytest.fixture
async def secured(members: tuple[Dataset, ...], database: asyncpg.Connection, schema: str) -> str:
    """A table with one row of each tenant, whose policy reads the setting ``app.tenant``."""
    await database.execute(
        """
        CREATE TABLE secured (id int PRIMARY KEY, user_id text, tenant text);
        INSERT INTO secured VALUES (1, 'u', 'acme'), (2, 'u', 'other');
        ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
        CREATE POLICY mine ON secured USING (tenant = pg_catalog.current_setting('app.tenant', true));
        """
    )
    return f"{schema}.secured"


async def test_settings_of_one_dataset_do_not_reach_the_next_one(run: Run, secured: str) -> None:
    """A policy that reads a setting must not find what another dataset of the bundle has set."""
    session = {"app.tenant": {"claim": "tenant"}}
    with_setting = Dataset(name="with_setting", table=secured, owner="user_id", session=session)
    without = Dataset(name="without", table=secured, owner="user_id")
    bundle = bundle_of(with_setting, without, with_setting.model_copy(update={"name": "again"}))
    exported = await run(bundle, "csv", claims={"tenant": "acme"})
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [(file["dataset"], file["rows"]) for file in manifest["files"]] == [
        ("with_setting", 1),
        ("without", 0),
        ("again", 1),
    ]


async def test_settings_whose_names_differ_in_capital_letters_are_one_setting(run: Run, secured: str) -> None:
    """To empty the setting of one dataset must not empty that of another one."""
    bundle = bundle_of(
        *(
            Dataset(
                name=f"secured_{number}",
                table=secured,
                owner="user_id",
                session={name: {"claim": "tenant"}},
            )
            for number, name in enumerate(("app.tenant", "App.Tenant", "APP.TENANT"))
        )
    )
    exported = await run(bundle, "csv", claims={"tenant": "acme"})
    archive = opened(exported)
    manifest = json.loads(archive.read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [1, 1, 1]
    # Each file says that policies can hide rows, as the manifest of the single export does.
    assert [file["warnings"] for file in manifest["files"]] == [{"row_level_security": 1}] * 3
    assert manifest["warnings"] == exported.warnings == {"row_level_security": 1}


async def test_masks_and_hidden_columns_hold_as_for_a_single_export(
    members: tuple[Dataset, ...], run: Run, exporter_of: Build, storage: ObjectStore
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
        exported = await run(bundle_of(secret, *others), "csv", claims=claims)
        single = await exported_by(exporter_of(secret), storage, secret, "csv", scope="own", claims=claims)
        file = json.loads(opened(exported).read("manifest.json"))["files"][0]
        assert opened(exported).read(file["file_name"]) == single.content
        assert ("since" in json.dumps(file)) is bool(claims)


async def test_a_filter_of_the_bundle_must_not_reveal_a_column(
    members: tuple[Dataset, ...], run: Run
) -> None:
    people, *others = members
    secret = people.model_copy(update={"column_settings": {"name": ColumnSettings(roles=("staff",))}})
    bundle = bundle_of(secret, *others, filters={"people": {"name": {"prefix": "Ä"}}})
    with pytest.raises(Rejected) as error:
        await run(bundle, "csv")
    assert "'people'" in str(error.value)
    assert "name'" not in str(error.value).replace("'people'", "")
    exported = await run(bundle, "csv", claims={"roles": ["staff"]})
    assert exported.data.row_count == 240


async def test_filters_of_bundle_and_request_both_hold(members: tuple[Dataset, ...], run: Run) -> None:
    bundle = bundle_of(*members, filters={"people": {"id": {"lte": 30}}, "amounts": {"paid": True}})
    exported = await run(bundle, "csv", filters={"people": {"since": {"gte": "2026-01-01T20:00:00Z"}}})
    manifest = json.loads(opened(exported).read("manifest.json"))
    assert [file["rows"] for file in manifest["files"]] == [7, 20, 0]
    assert manifest["files"][0]["filters"] == {"id": {"lte": 30}, "since": {"gte": "2026-01-01T20:00:00Z"}}
    flat = await run(bundle, "csv", filters={"people.since": {"gte": "2026-01-01T20:00:00Z"}})
    assert flat.data.manifest["files"][0]["filters"] == manifest["files"][0]["filters"]
    with pytest.raises(Rejected, match=r"filters\.people\.id: the bundle limits this column already"):
        await run(bundle, "csv", filters={"people": {"id": 1}})


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
    request_fields: dict[str, Any], text: str, members: tuple[Dataset, ...], run: Run
) -> None:
    with pytest.raises(Rejected) as error:
        await run(bundle_of(*members), "csv", **request_fields)
    assert text in str(error.value)


async def test_limits_of_each_dataset_and_of_the_export_hold(members: tuple[Dataset, ...], run: Run) -> None:
    people, *others = members
    with pytest.raises(Rejected, match=r"'people' of bundle 'everything': .*more than 199 rows"):
        await run(bundle_of(people.model_copy(update={"max_rows": 199}), *others), "csv")
    with pytest.raises(Rejected, match="the bundle has more than 239 rows"):
        await run(bundle_of(*members), "csv", {"limits": ExportLimits(max_rows=239)})
    assert (
        await run(bundle_of(*members), "csv", {"limits": ExportLimits(max_rows=240)})
    ).data.row_count == 240
    with pytest.raises(Rejected, match="more than 1,000 bytes"):
        await run(bundle_of(*members), "csv", {"limits": ExportLimits(file_bytes=1000)})


async def test_a_cancelled_bundle_leaves_nothing(
    members: tuple[Dataset, ...],
    exporter_of: Build,
    storage: ObjectStore,
    between: Callable[..., None],
) -> None:
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await asyncio.Event().wait()

    between(wait)
    bundle = bundle_of(*members)
    wanted = ExportRequest.parse({"user_id": "u", "export_type": bundle.name, "format": "csv"})
    task = task_for(wanted)
    running = asyncio.create_task(exporter_of(bundle).run(task, ExportProgress()))
    async with at_most(10):
        await reached.wait()
    running.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await running
    prefix = storage.folder(task.name, 1)
    assert not list(storage._client.list_objects(storage.bucket, prefix=prefix, recursive=True))


async def test_the_readme_of_a_subject_access_is_about_the_person(
    members: tuple[Dataset, ...], run: Run
) -> None:
    bundle = bundle_of(*members, kind="subject_access", label="My data", labels={"de": "Meine Daten"})
    english = opened(await run(bundle, "csv")).read("README.txt").decode()
    assert english.startswith("My data\n=======\n\nThis archive has all data that is stored about u")
    assert "people: 200 rows" in english
    german = opened(await run(bundle, "json", options={"language": "de-AT"})).read("README.txt").decode()
    assert german.startswith("Meine Daten\n===========\n\nDieses Archiv enthält alle Daten")
    assert "people: 200 Zeilen" in german
    some = (
        opened(await run(bundle, "csv", filters={"people": {"id": {"lt": 10}}})).read("README.txt").decode()
    )
    assert "all data" not in some
    assert "not all" in " ".join(some.split())
    with pytest.raises(Rejected, match="about one person"):
        await run(bundle, "csv", scope="all")
