"""The limits of files come from the settings (V11)."""

from dataclasses import replace

import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.task import ExportLimits, FileLimits
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest, Split


@pytest.mark.parametrize(
    ("set_to", "format_name", "limits"),
    [
        ({}, "csv", FileLimits()),
        ({"max_rows": 5}, "csv", FileLimits(5)),
        ({"pdf_max_rows": 7, "pdf_max_bytes": 8}, "pdf", FileLimits(7, 8)),
        ({"pdf_max_rows": 7, "pdf_max_bytes": 8, "max_rows": 5}, "pdf", FileLimits(5, 8)),
        ({"pdf_max_rows": 7, "pdf_max_bytes": 8, "max_rows": 9}, "pdf", FileLimits(7, 8)),
    ],
)
def test_the_smaller_limit_counts(set_to: dict[str, int], format_name: str, limits: FileLimits) -> None:
    settings = Settings(_env_file=None, **set_to)  # type: ignore[arg-type]
    expected = replace(limits, file_bytes=settings.split_max_bytes)
    assert ExportLimits.of(settings).of_file(format_name) == expected


@pytest.mark.parametrize(("split", "limit"), [(None, 7), (Split(rows=5), 9)])
def test_with_several_files_the_limit_of_a_format_is_one_of_a_file(split: Split | None, limit: int) -> None:
    settings = Settings(_env_file=None, pdf_max_rows=7, max_rows=9)
    request = ExportRequest(user_id="u", export_type="ledger", format="pdf", split=split)
    found = ExportLimits.of(settings).of_rows(request)
    assert found is not None
    assert found.rows == limit


@pytest.mark.parametrize(
    ("of_dataset", "set_to", "split", "limit"),
    [
        (5, {}, None, (5, "an export of the dataset 'ledger'")),
        (5, {"max_rows": 9}, None, (5, "an export of the dataset 'ledger'")),
        (50, {"max_rows": 9}, None, (7, "a pdf file")),
        (50, {"max_rows": 9}, Split(rows=5), (9, "an export")),
        (5, {"max_rows": 9}, Split(rows=5), (5, "an export of the dataset 'ledger'")),
        (None, {}, Split(rows=5), None),
    ],
)
def test_the_limit_of_a_dataset_counts_beside_the_others(
    of_dataset: int | None, set_to: dict[str, int], split: Split | None, limit: tuple[int, str] | None
) -> None:
    settings = Settings(_env_file=None, pdf_max_rows=7, **set_to)  # type: ignore[arg-type]
    request = ExportRequest(user_id="u", export_type="ledger", format="pdf", split=split)
    dataset = Dataset(name="ledger", table="public.ledger", max_rows=of_dataset)
    limits = ExportLimits.of(settings).of_dataset(dataset)
    found = limits.of_rows(request)
    assert (found and (found.rows, found.what)) == limit
    assert limits.of_file("pdf").max_rows == min(filter(None, (of_dataset, set_to.get("max_rows"), 7)))
