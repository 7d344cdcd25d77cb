"""Each column of a dataset has the caption of its name in a template, also if names differ only by case."""

import pytest
from openpyxl import Workbook

from stream_app.datasets.excel_template import column_positions


@pytest.mark.parametrize(
    ("captions", "columns", "positions"),
    [
        (["Id", "id"], ["Id", "id"], {"Id": 1, "id": 2}),
        (["id", " Id "], ["Id", "id"], {"Id": 2, "id": 1}),
        (["AMOUNT", "Id"], ["id", "amount"], {"id": 2, "amount": 1}),
        (["Number", "Sum"], ["id", "amount"], {"id": 1, "amount": 2}),
    ],
)
def test_captions_are_found_by_name_or_else_in_their_order(
    captions: list[str], columns: list[str], positions: dict[str, int]
) -> None:
    sheet = Workbook().active
    assert sheet is not None
    sheet.append(captions)
    assert column_positions(sheet, 1, columns) == positions
