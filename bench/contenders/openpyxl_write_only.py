"""openpyxl's write-only mode, with rows from a cursor."""

from openpyxl import Workbook

from bench.contenders.excel_cells import cells
from bench.context import Context


def run(context: Context) -> None:
    book = Workbook(write_only=True)
    sheet = book.create_sheet("ledger")
    for number, row in enumerate(context.stream()):
        if number == 0:
            sheet.append(list(row.keys()))
        sheet.append(cells(row))
    with context.file() as path:
        book.save(path)
