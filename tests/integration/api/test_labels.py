"""Labels of datasets and columns in the list of datasets, and their checks at the request."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from stream_app.datasets.models import ColumnSettings
from tests.integration.api.conftest import Harness, order


@pytest.fixture
def labelled(api: Harness) -> Iterator[Harness]:
    """The API with labels for the dataset ``ledger``."""
    services = api.app.state.services
    ledger = services.datasets["ledger"].model_copy(
        update={
            "label": "Entries",
            "labels": {"de": "Einträge"},
            "timezone": "Europe/Berlin",
            "column_settings": {
                "kind": ColumnSettings(label="Same", labels={"de": "Art"}),
                "id": ColumnSettings(label="Same", labels={"de": "Nummer"}, format="0"),
            },
        }
    )
    api.app.state.services = replace(services, datasets=api.datasets_with(ledger))
    yield api
    api.app.state.services = services


async def test_the_list_has_labels(labelled: Harness) -> None:
    async with labelled.user() as client:
        content = (await client.get("/exports/datasets")).json()
    [ledger] = [item for item in content["datasets"] if item["name"] == "ledger"]
    assert (ledger["label"], ledger["labels"]) == ("Entries", {"de": "Einträge"})
    assert ledger["timezone"] == "Europe/Berlin"
    columns = {item["name"]: item for item in ledger["columns"]}
    assert columns["kind"]["labels"] == {"de": "Art"}
    assert columns["id"]["format"] == "0"
    assert columns["user_id"]["label"] is None


async def test_equal_labels_are_refused_at_once(labelled: Harness) -> None:
    async with labelled.user() as client:
        for name, language, status in (
            ("json", None, 422),
            ("parquet", "fr", 422),
            ("json", "de", 202),
            ("csv", None, 202),
        ):
            options = {"headers": "labels"} | ({"language": language} if language else {})
            response = await client.post("/exports/jobs", json=order(format=name, options=options))
            assert response.status_code == status, response.text
            if status == 422:
                assert response.json()["code"] == "duplicate_labels"
                assert response.json()["field"] == "options.headers"


async def test_estimates_know_the_options(labelled: Harness) -> None:
    options = {"headers": "labels", "language": "de", "timezone": "Asia/Kolkata", "locale": "de-DE"}
    async with labelled.user() as client:
        for name in ("csv", "json", "excel", "pdf", "parquet"):
            response = await client.post("/exports/jobs:estimate", json=order(format=name, options=options))
            assert response.status_code == 200, response.text
            assert response.json()["rows"] == 0
