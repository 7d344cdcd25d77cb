"""The files of a job whose list is lost are those of its manifest."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from stream_app.jobs.job_files import JobFiles
from stream_app.storage.errors import exception_for
from streaming_exporter.errors import Outage, Rejected, Retryable
from tests.rows import each_row
from tests.unit.storage.test_errors import answer

JOB: Any = SimpleNamespace(file_path="jobs/1/1/manifest.json")


def files(read: AsyncMock) -> JobFiles:
    engine: Any = None
    return JobFiles(engine, read)


async def test_a_manifest_that_does_not_exist_lists_nothing() -> None:
    missing = Rejected("there is no object", code="no_file")
    assert await files(AsyncMock(side_effect=missing))._of_manifest(JOB) == []


@pytest.mark.parametrize(
    ("code", "status", "raised"),
    [
        ("BadRequest", 400, Retryable),
        ("SomethingNew", 409, Retryable),
        ("NotImplemented", 501, Retryable),
        ("SlowDown", 503, Outage),
    ],
)
async def test_a_manifest_that_cannot_be_read_is_no_empty_one(
    code: str, status: int, raised: type[Exception]
) -> None:
    failed = exception_for(answer(code, status))
    with pytest.raises(raised):
        await files(AsyncMock(side_effect=failed))._of_manifest(JOB)


@each_row(
    "content",
    [
        b"",
        b'{"files": [{"number": 1, "file_na',
        b"<html>",
        b'{"blocked": true}',
        b"[]",
        b'{"files": [{"number": 1}]}',
        b'{"files": null}',
        b'{"files": ["a.csv"]}',
    ],
)
async def test_a_manifest_that_a_proxy_has_changed_is_read_again(content: bytes) -> None:
    with pytest.raises(Retryable):
        await files(AsyncMock(return_value=content))._of_manifest(JOB)
