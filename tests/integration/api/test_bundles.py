"""Bundles over HTTP: in the list, in requests, in estimates and in schedules."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from api.jobs import estimates
from dev.sample import DATASETS
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.integration.api.conftest import changed, client_of, order, running
from tests.waiting import patient

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUNDLES = """
roles = ["staff", "customer"]
[datasets.enrollments.columns.key_id]
roles = ["staff"]

[bundles.my_data]
datasets = ["enrollments", "proofs", "ledger"]
label = "My data"
labels = { de = "Meine Daten" }
description = "Everything about you"
[bundles.my_data.filters.ledger]
kind = "proof"

[bundles.person]
kind = "subject_access"
roles = ["customer"]

[bundles.open]
datasets = ["proofs"]
"""
USER = "user-1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """Returns clients of an API with bundles, by the roles of the user. ``ledger`` needs a role."""
    file = tmp_path_factory.mktemp("api") / "datasets.toml"
    file.write_text(DATASETS.read_text("utf-8") + BUNDLES)
    settings = changed(api_settings, datasets_file=file)
    async with running(settings) as app:
        yield lambda *roles: client_of(app, sign_token(settings, USER, roles))


async def listed(client: httpx2.AsyncClient) -> dict[str, Any]:
    found = (await client.get("/exports/datasets")).json()["datasets"]
    return {item["name"]: item for item in found}


async def test_bundles_are_listed_for_those_who_can_see_each_dataset(clients: Any) -> None:
    async with clients("customer") as client:
        found = await listed(client)
    names = ["enrollments", "proofs", "ledger"]
    my_data = found["my_data"]
    assert my_data["bundle"] == {"kind": None, "datasets": names}
    assert (my_data["label"], my_data["labels"]) == ("My data", {"de": "Meine Daten"})
    assert (my_data["columns"], my_data["has_owner"], my_data["has_time"]) == ([], True, True)
    assert {"csv", "excel", "pdf"} <= set(my_data["formats"])
    assert my_data["scopes"] == ["own"]
    assert found["person"]["bundle"]["kind"] == "subject_access"
    assert found["ledger"]["bundle"] is None
    async with clients() as client:
        assert set(await listed(client)) == {"enrollments", "proofs", "open"}


async def test_one_dataset_without_the_right_refuses_the_bundle(clients: Any) -> None:
    async with clients() as client:
        answer = await client.post("/exports/jobs", json=order(export_type="my_data"))
        hidden = await client.post("/exports/jobs", json=order(export_type="person"))
    assert (answer.status_code, answer.json()["code"]) == (422, "bundle_not_allowed")
    assert "ledger" not in answer.text
    assert (hidden.status_code, hidden.json()["code"]) == (422, "unknown_dataset")
    assert "my_data" not in hidden.json()["detail"]


async def test_a_request_is_checked_against_each_table(clients: Any) -> None:
    async with clients("customer") as client:
        body = order(export_type="my_data", filters={"proofs": {"nose": 1}})
        wrong = await client.post("/exports/jobs", json=body)
        body = order(export_type="my_data", filters={"ledger": {"id": {"gt": 1}}})
        right = await client.post("/exports/jobs", json=body)
        flat = await client.post("/exports/jobs", json=order(export_type="my_data", filters={"id": 1}))
    assert wrong.status_code == 422
    assert wrong.json()["field"] == "filters.proofs.nose"
    assert "dataset 'proofs' of bundle 'my_data'" in wrong.json()["detail"]
    assert right.status_code == 202
    assert (flat.status_code, flat.json()["field"]) == (422, "filters.id")


async def test_an_estimate_is_the_sum_of_the_datasets(clients: Any, source_dsn: str) -> None:
    async with clients("customer") as client:
        found = (await client.post("/exports/jobs:estimate", json=order(export_type="my_data"))).json()
    connection = await asyncpg.connect(source_dsn)
    rows = 0
    for name, more in {"enrollments": "", "proofs": "", "ledger": " AND kind = 'proof'"}.items():
        rows += await connection.fetchval(f"SELECT count(*) FROM {name} WHERE user_id = $1{more}", USER)
    await connection.close()
    assert (found["rows"], found["exact"], found["fits"]) == (rows, True, True)
    assert found["bytes"] > 0


async def test_an_estimate_of_many_datasets_ends_in_time(
    clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Datasets that are not counted in time make the estimate of a bundle a lower limit, not an error."""
    estimated = estimates._snapshot
    slow = asyncio.Event()

    @asynccontextmanager
    async def snapshot(services: Any, table: Any, rows: Any) -> AsyncIterator[Any]:
        if table.dataset.name == "proofs" or everything_is_slow:
            await slow.wait()
        async with estimated(services, table, rows) as found:
            yield found

    monkeypatch.setattr(estimates, "_snapshot", snapshot)
    monkeypatch.setattr(estimates, "SECONDS", patient(2))
    async with clients("customer") as client:
        everything_is_slow = False
        found = (await client.post("/exports/jobs:estimate", json=order(export_type="my_data"))).json()
        everything_is_slow = True
        monkeypatch.setattr(estimates, "SECONDS", 0.2)
        answer = await client.post("/exports/jobs:estimate", json=order(export_type="my_data"))
    assert (found["at_least"], found["exact"], found["bytes"], found["fits"]) == (True, False, None, True)
    assert found["rows"] > 0
    assert answer.status_code == 503


async def test_a_schedule_with_a_window_limits_each_dataset_by_its_own_time(clients: Any) -> None:
    body = order(export_type="my_data", schedule="daily", window="previous_period")
    async with clients("customer") as client:
        made = await client.post("/exports/schedules", json=body)
        assert made.status_code == 201, made.text
        run = await client.post(f"/exports/schedules/{made.json()['id']}:run")
        assert run.status_code == 202, run.text
        job = (await client.get(f"/exports/jobs/{run.json()['export_job_id']}")).json()
        estimated = await client.post("/exports/schedules:estimate", json=body)
        refused = await client.post(
            "/exports/schedules", json=body | {"filters": {"ledger": {"created_at": {"gte": "today"}}}}
        )
    columns = job["window"]["columns"]
    assert set(columns) == {"enrollments", "proofs", "ledger"}
    for name, column in columns.items():
        assert set(job["filters"][name]) == {column}
    assert estimated.status_code == 200
    assert (refused.status_code, refused.json()["field"]) == (422, "filters.ledger.created_at")


MISDATED = """
[datasets.misdated]
table = "public.ledger"
owner = "user_id"
time = "kind"

[bundles.misdated_too]
datasets = ["proofs", "misdated"]
"""


@pytest.mark.parametrize("name", ["misdated", "misdated_too"])
async def test_a_window_over_a_column_without_times_is_refused_with_the_schedule(
    api_settings: Settings, tmp_path: Path, name: str
) -> None:
    """Otherwise the dataset would be whole in the estimate, and each run would fail."""
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS.read_text("utf-8") + MISDATED)
    settings = changed(api_settings, datasets_file=file)
    async with running(settings) as app, client_of(app, sign_token(settings, USER, ())) as client:
        body = order(export_type=name, schedule="daily", window="previous_period")
        refused = (await client.post("/exports/schedules", json=body)).json()
        whole = await client.post("/exports/schedules", json=body | {"window": "none"})
    assert (refused["status"], refused["code"], refused["field"]) == (422, "source_misconfigured", "window")
    assert "operators: time in the datasets file must name a column with dates" in refused["detail"]
    assert whole.status_code == 201
