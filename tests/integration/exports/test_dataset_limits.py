"""The limits of a dataset hold in the worker, too: a job can be older than the datasets file."""

from collections.abc import Callable
from typing import Any

import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportProgress
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for

Build = Callable[..., Exporter]


def ledger(**limits: Any) -> Dataset:
    return Dataset(name="ledger", table="public.ledger", owner="user_id", **limits)


def request(**changed: Any) -> ExportRequest:
    return ExportRequest.parse(
        {"user_id": "u", "export_type": "ledger", "format": "csv", "scope": "all", **changed}
    )


async def test_a_format_that_is_not_allowed_any_more_is_refused(exporter_of: Build) -> None:
    exporter = exporter_of(ledger(formats=("excel", "json", "docx")))
    with pytest.raises(Rejected, match=r"cannot be exported as csv; allowed: excel, json$") as refused:
        await exporter.run(task_for(request()), ExportProgress())
    assert refused.value.code == "format_not_allowed"


@pytest.mark.parametrize("split", [None, {"rows": 10}])
async def test_more_rows_than_the_dataset_allows_are_refused_before_the_first(
    exporter_of: Build, split: dict[str, int] | None
) -> None:
    exporter = exporter_of(ledger(max_rows=20))
    with pytest.raises(Rejected, match="more than 20 rows, the most that an export of") as refused:
        await exporter.run(task_for(request(split=split)), ExportProgress())
    assert refused.value.code == "too_many_rows"
    fits = request(split=split, filters={"id": {"lte": 20}})
    assert (await exporter.run(task_for(fits), ExportProgress())).row_count == 20
