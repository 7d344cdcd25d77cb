"""The limits and labels of a dataset are listed, and the limits hold for jobs, schedules and estimates."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from dev.sample import DATASETS
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.integration.api.conftest import changed, client_of, order, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITED = """
label = "Ledger"
labels = { de = "Hauptbuch" }
formats = ["csv", "excel", "unheard-of"]
max_rows = 1_000
retention_days = 2.5
timezone = "Europe/Berlin"

[datasets.ledger.columns.kind]
label = "Kind"
labels = { de = "Art" }
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    api_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx2.AsyncClient]:
    """The API with limits for the last dataset of the sample, ``ledger``."""
    file = tmp_path_factory.mktemp("api") / "datasets.toml"
    file.write_text(DATASETS.read_text("utf-8") + LIMITED)
    settings = changed(api_settings, datasets_file=file)
    async with running(settings) as app, client_of(app, sign_token(settings, "u")) as made:
        yield made


async def test_the_limits_and_labels_are_listed(client: httpx2.AsyncClient) -> None:
    listed = {item["name"]: item for item in (await client.get("/exports/datasets")).json()["datasets"]}
    ledger = listed["ledger"]
    expected = {
        "label": "Ledger",
        "labels": {"de": "Hauptbuch"},
        "formats": ["csv", "excel"],
        "max_rows": 1000,
        "retention_days": 2.5,
        "timezone": "Europe/Berlin",
        "parameters": [],
    }
    assert {name: ledger[name] for name in expected} == expected
    (kind,) = (column for column in ledger["columns"] if column["name"] == "kind")
    assert (kind["label"], kind["labels"], kind["format"]) == ("Kind", {"de": "Art"}, None)
    plain = listed["proofs"]
    assert (plain["label"], plain["max_rows"], plain["retention_days"]) == (None, None, 7)
    assert {"csv", "excel", "json", "ndjson", "pdf", "parquet"} <= set(plain["formats"])


@pytest.mark.parametrize("path", ["/exports/jobs", "/exports/jobs:estimate", "/exports/schedules"])
async def test_another_format_is_refused_with_those_that_are_allowed(
    client: httpx2.AsyncClient, path: str
) -> None:
    body = order(format="json")
    if path == "/exports/schedules":
        body |= {"schedule": "daily"}
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "format_not_allowed")
    assert answer.json()["field"] == "format"
    assert answer.json()["detail"].endswith("allowed: csv, excel")


async def test_the_estimate_knows_the_limit_of_the_dataset(
    api_settings: Settings, client: httpx2.AsyncClient
) -> None:
    everything = {"Authorization": f"Bearer {sign_token(api_settings, 'u', ['exports:all'])}"}
    answer = await client.post("/exports/jobs:estimate", json=order(scope="all"), headers=everything)
    found = answer.json()
    assert (found["row_limit"], found["fits"]) == (1000, False)
    assert found["reason"] == (
        "An export of the dataset 'ledger' can have at most 1,000 rows. Limit the export with filters"
    )
