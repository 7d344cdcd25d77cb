"""The obvious way: a workbook in memory, row by row."""

from openpyxl import Workbook

from bench.contenders.excel_cells import cells
from bench.context import Context


def run(context: Context) -> None:
    rows = context.fetch_all()
    book = Workbook()
    (sheet,) = book.worksheets
    sheet.append(list(rows[0].keys()))
    for row in rows:
        sheet.append(cells(row))
    with context.file() as path:
        book.save(path)
