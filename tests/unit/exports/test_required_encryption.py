"""Encryption that a dataset requires since a request was made holds for the request."""

from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.models import Dataset
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportLimits, ExportProgress, ExportTask
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

LOCKED = Dataset(name="ledger", table="ledger", encrypt="required")
OPEN = Dataset(name="orders", table="orders")
BUNDLE = Bundle.of(BundleSettings(name="both", datasets=("orders", "ledger")), [OPEN, LOCKED])


@pytest.mark.parametrize("dataset", [LOCKED, BUNDLE], ids=["dataset", "bundle"])
async def test_a_job_that_waits_while_the_datasets_file_changes_writes_no_plain_file(
    dataset: Dataset,
) -> None:
    exporter = Exporter(
        sources=Mock(),
        catalog=Mock(),
        storage=Mock(),
        datasets={dataset.name: dataset},
        formats=FORMATS,
        limits=ExportLimits(),
        threads=Mock(),
    )
    request = ExportRequest(user_id="u", export_type=dataset.name, format="csv")
    task = ExportTask(name="job", request=request, requested_at=datetime.now(UTC), target=str)
    with pytest.raises(Rejected, match="files of dataset 'ledger' must be encrypted"):
        await exporter.run(task, ExportProgress())
