"""Estimates of one user run one after the other, and do not wait for those of others."""

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from api.jobs import estimates
from api.jobs.schemas import Estimate
from api.services import ApiServices
from streaming_exporter.events import ExportRequest


async def test_a_user_has_one_estimate_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running: Counter[str] = Counter()
    seen = []

    async def observed(_: Any, request: ExportRequest) -> Estimate:
        running[request.user_id] += 1
        await asyncio.sleep(0.01)
        seen.append(dict(running))
        running[request.user_id] -= 1
        return Estimate(rows=1, bytes=1, exact=True, at_least=False, row_limit=None, fits=True, reason=None)

    monkeypatch.setattr(estimates, "_estimate_request", observed)
    services = cast(ApiServices, None)
    requests = [
        ExportRequest(user_id=user, export_type="ledger", format="csv")
        for user in ("ada", "ada", "ada", "bob")
    ]
    await asyncio.gather(*(estimates.estimate(services, request) for request in requests))
    assert max(found.get("ada", 0) for found in seen) == 1
    assert any(found == {"ada": 1, "bob": 1} for found in seen)


async def test_an_estimate_waits_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise many estimates of a slow source would hold all calls of their user."""

    async def endless(*_: Any) -> Estimate:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(estimates, "_estimate_request", endless)
    monkeypatch.setattr(estimates, "SECONDS", 0.01)
    services = cast(ApiServices, None)
    request = ExportRequest(user_id="ada", export_type="ledger", format="csv")
    first = asyncio.create_task(estimates.estimate(services, request))
    await asyncio.sleep(0)
    with pytest.raises(estimates.EstimateTimedOut):
        await estimates.estimate(services, request)
    first.cancel()
