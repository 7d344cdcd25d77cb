"""XlsxWriter in its mode constant_memory. The rows come from a cursor."""

from xlsxwriter import Workbook  # type: ignore[import-untyped]

from bench.contenders.excel_cells import cells
from bench.context import Context

_OPTIONS = {
    "constant_memory": True,
    "default_date_format": "yyyy-mm-dd hh:mm:ss",
    "strings_to_formulas": False,
    "strings_to_urls": False,
}


def run(context: Context) -> None:
    with context.file() as path, Workbook(str(path), _OPTIONS) as book:
        sheet = book.add_worksheet("ledger")
        for number, row in enumerate(context.stream()):
            if number == 0:
                sheet.write_row(0, 0, list(row.keys()))
            sheet.write_row(number + 1, 0, cells(row))
