"""DuckDB and Arrow read an export of several files from the store, by nothing but its manifest."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import duckdb
import duckdb_extension_httpfs  # type: ignore[import-untyped]
import pytest
from pyarrow import dataset, fs

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportProgress, ExportResult
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for

ROWS = 10
SUMS = [(ROWS, sum(range(1, ROWS + 1)), ROWS)]
"""Of the rows: their number, the sum of their ids, the number of their values."""


class Keys:
    """The address of the store and the keys of the service, as DuckDB and Arrow take them."""

    def __init__(self, settings: Settings) -> None:
        assert settings.s3_access_key
        assert settings.s3_secret_key
        self.host = settings.s3_endpoint.rpartition("/")[2]
        self.name = settings.s3_access_key.get_secret_value()
        self.secret = settings.s3_secret_key.get_secret_value()
        self.region = settings.s3_region


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings)


@pytest.fixture
def lake(keys: Keys) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the store's keys."""
    (extension,) = Path(str(duckdb_extension_httpfs.__path__[0])).rglob("*.duckdb_extension")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        connection.execute(
            f"CREATE SECRET (TYPE s3, ENDPOINT '{keys.host}', URL_STYLE 'path', USE_SSL false, "
            f"KEY_ID '{keys.name}', SECRET '{keys.secret}')"
        )
        yield connection


@pytest.fixture
async def table(database: asyncpg.Connection, schema: str) -> str:
    await database.execute("CREATE TABLE things (id int PRIMARY KEY, value text)")
    await database.execute(f"INSERT INTO things SELECT n, 'v' || n FROM generate_series(1, {ROWS}) AS n")
    return f"{schema}.things"


async def split_export(
    exporter_of: Callable[..., Exporter], table: str, format_name: str, **options: str
) -> ExportResult:
    """Export the table in three files, and their manifest."""
    request = {"user_id": "u", "export_type": "things", "format": format_name, "scope": "all"}
    wanted = ExportRequest.parse({**request, "split": {"rows": 4}, "options": options or None})
    result = await exporter_of(Dataset(name="things", table=table)).run(task_for(wanted), ExportProgress())
    assert len(result.files) == 3
    return result


@pytest.mark.parametrize(
    ("format_name", "options", "function"),
    [
        ("csv", {}, "read_csv"),
        ("csv", {"compression": "gzip"}, "read_csv"),
        ("json", {}, "read_json"),
        ("ndjson", {"compression": "zstd"}, "read_json"),
        ("parquet", {}, "read_parquet"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
async def test_duckdb_reads_the_files_that_the_manifest_lists(
    exporter_of: Callable[..., Exporter],
    table: str,
    lake: duckdb.DuckDBPyConnection,
    format_name: str,
    options: dict[str, str],
    function: str,
) -> None:
    """By ``entries``, as Redshift's COPY does: the addresses and the sizes of the objects."""
    result = await split_export(exporter_of, table, format_name, **options)
    manifest = f"s3://{result.bucket}/{result.key}"
    entries = lake.execute(
        "SELECT entry.url, entry.mandatory, entry.meta.content_length "
        f"FROM (SELECT unnest(entries) AS entry FROM read_json('{manifest}'))"
    ).fetchall()
    assert all(mandatory for _, mandatory, _ in entries)
    urls = [url for url, _, _ in entries]
    sizes = lake.execute("SELECT filename, size FROM read_blob($1) ORDER BY filename", [urls]).fetchall()
    assert sizes == [(url, length) for url, _, length in entries]
    sums = f"SELECT count(*), sum(id), count(value) FROM {function}($1)"
    assert lake.execute(sums, [urls]).fetchall() == SUMS
    rows, total = lake.execute(
        f"SELECT rows, list_sum([file.rows FOR file IN files]) FROM read_json('{manifest}')"
    ).fetchall()[0]
    assert rows == total == ROWS


async def test_arrow_reads_the_files_that_the_manifest_lists(
    exporter_of: Callable[..., Exporter], table: str, keys: Keys
) -> None:
    """As one dataset, whose rows are counted from the footers."""
    result = await split_export(exporter_of, table, "parquet")
    store = fs.S3FileSystem(
        access_key=keys.name,
        secret_key=keys.secret,
        endpoint_override=keys.host,
        scheme="http",
        region=keys.region,
    )
    with store.open_input_stream(f"{result.bucket}/{result.key}") as file:
        entries = json.loads(file.read())["entries"]
    paths = [entry["url"].removeprefix("s3://") for entry in entries]
    things = dataset.dataset(paths, format="parquet", filesystem=store)
    assert things.count_rows() == ROWS
    assert sorted(things.to_table()["id"].to_pylist()) == list(range(1, ROWS + 1))
