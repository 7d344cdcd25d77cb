"""Background work of the API that ends is logged and started again."""

import asyncio

import pytest
from structlog.testing import capture_logs

from api import background
from api.background import keep_running
from tests.waiting import until_async


async def test_work_that_ends_or_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RESTART_SECONDS", 0)
    calls: list[int] = []

    async def work() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise LookupError("unforeseen")
        if len(calls) > 2:
            await asyncio.Event().wait()

    with capture_logs() as lines:
        async with keep_running("listener", work):
            await until_async(lambda: len(calls) == 3)
    assert [line["task"] for line in lines if line["event"] == "background.ended"] == ["listener"] * 2
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "listener"]
