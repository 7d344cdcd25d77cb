"""The place of the rows in a template: it is cleared, and the print area reaches to the last row."""

from collections.abc import Sequence
from typing import Any, cast

from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

Box = tuple[int, int, int, int]
"""First column, first row, last column, last row."""


def clear_below(sheet: Worksheet, header: int, width: int) -> None:
    """Remove everything below row ``header`` that would replace, hide or divide the rows.

    openpyxl deletes the cells only. What belongs to rows without being in them stays: merged ranges, of
    which programs show the first cell alone, heights, page breaks, and the setting that rows without a
    height of their own are hidden.

    Args:
        sheet: the sheet of the rows.
        header: the row of the captions.
        width: number of the columns of the rows.
    """
    cut = [
        merged
        for merged in sheet.merged_cells.ranges
        if merged.max_row > header and (merged.min_row > header or merged.min_col <= width)
    ]
    for merged in cut:
        sheet.merged_cells.remove(merged)
    sheet.delete_rows(header + 1, sheet.max_row)
    for merged in cut:
        if merged.min_row < header or (merged.min_row == header and merged.min_col < merged.max_col):
            sheet.merge_cells(
                start_row=merged.min_row,
                end_row=header,
                start_column=merged.min_col,
                end_column=merged.max_col,
            )
    for row in [row for row in sheet.row_dimensions if row > header]:
        del sheet.row_dimensions[row]
    sheet.row_breaks.brk = [each for each in sheet.row_breaks.brk if each.id <= header]
    sheet.sheet_format.zeroHeight = None


def printed_boxes(sheet: Worksheet) -> list[Box]:
    """Return the ranges of the print area; none if the whole sheet is printed."""
    ranges = cast(Any, sheet)._print_area.ranges  # the public text has the names of sheets, with commas
    return sorted((each.min_col, each.min_row, each.max_col, each.max_row) for each in ranges)


def print_to(sheet: Worksheet, boxes: Sequence[Box], header: int, last_row: int) -> None:
    """Print ``boxes``, where those that reach the header end at ``last_row``.

    A range below the header is left out, because the rows have replaced what was there.
    """
    sheet.print_area = ",".join(
        f"{get_column_letter(left)}{top}:{get_column_letter(right)}"
        f"{max(header, last_row) if bottom >= header else bottom}"
        for left, top, right, bottom in boxes
        if top <= header
    )
