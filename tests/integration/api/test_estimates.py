"""Estimates are accurate and quick, and validate a request as POST does."""

import time
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from stream_app.exports.formats.registry import FORMATS
from tests.integration.api.conftest import Harness, order
from tests.waiting import patient

ALL = {"export_type": "ledger", "scope": "all"}


async def estimate(api: Harness, *roles: str, **wanted: Any) -> dict[str, Any]:
    async with api.user(*roles) as client:
        response = await client.post("/exports/jobs:estimate", json=order(**wanted))
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


@pytest.mark.parametrize("name", FORMATS)
async def test_estimated_rows_and_bytes_are_accurate(api: Harness, name: str) -> None:
    whole = await estimate(api, "exports:all", **ALL, format=name)
    assert 2_700 <= whole["rows"] <= 3_300
    assert whole["fits"] is True
    assert whole["exact"] is False
    assert 3_000 * 3 < whole["bytes"] < 3_000 * 1_000


async def test_csv_bytes_are_those_of_the_rows(api: Harness, source_dsn: str) -> None:
    connection = await asyncpg.connect(source_dsn)
    size = await connection.fetchval("SELECT sum(length(id::text) + length(kind) + 2) FROM ledger")
    await connection.close()
    found = await estimate(api, "exports:all", **ALL, columns=["id", "kind"])
    assert 0.7 * size < found["bytes"] < 1.3 * size


async def test_few_rows_are_counted(api: Harness) -> None:
    found = await estimate(api, "exports:all", **ALL, filters={"id": {"lte": 7}})
    assert (found["rows"], found["exact"]) == (7, True)
    assert (await estimate(api))["rows"] == 0, "of a new user there are none"


async def test_a_format_that_cannot_have_this_many_rows(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = api.app.state.services
    limited = services.settings.model_copy(update={"pdf_max_rows": 1000})
    monkeypatch.setattr(api.app.state, "services", replace(services, settings=limited))
    found = await estimate(api, "exports:all", **ALL, format="pdf")
    assert (found["fits"], found["row_limit"]) == (False, 1000)
    assert "1,000 rows" in found["reason"]
    assert (await estimate(api, "exports:all", **ALL, format="csv"))["fits"] is True


async def test_an_estimate_takes_milliseconds(api: Harness) -> None:
    await estimate(api, "exports:all", **ALL)
    begin = time.perf_counter()
    for _ in range(5):
        await estimate(api, "exports:all", **ALL)
    assert (time.perf_counter() - begin) / 5 < patient(0.5)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"export_type": "nope"}, 422, "unknown_dataset"),
        ({"columns": ["nope"]}, 422, "unknown_column"),
        ({"filters": {"id": {"gte": "five"}}}, 422, "bad_filter_value"),
        ({"format": "excel", "options": {"compression": "gzip"}}, 422, "invalid_request"),
        ({"scope": "all"}, 403, "scope_not_allowed"),
    ],
)
async def test_an_estimate_refuses_the_same_requests_as_post(
    api: Harness, changes: dict[str, Any], status: int, code: str
) -> None:
    async with api.user() as client:
        for path in ("/exports/jobs:estimate", "/exports/jobs"):
            response = await client.post(path, json=order(**changes))
            assert (response.status_code, response.json()["code"]) == (status, code)
    assert await api.count() == 0


async def test_an_estimate_leaves_nothing_behind(api: Harness) -> None:
    await estimate(api)
    assert await api.count() == 0
