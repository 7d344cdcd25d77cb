"""rustpy-xlsxwriter, a Python binding of rust_xlsxwriter, with rows from a cursor."""

from collections.abc import Iterator
from typing import Any

from rustpy_xlsxwriter import write_worksheet

from bench.contenders.excel_cells import cells
from bench.context import Context


def run(context: Context) -> None:
    with context.file() as path:
        write_worksheet(_records(context), str(path), "ledger", datetime_format="yyyy-mm-dd hh:mm:ss")


def _records(context: Context) -> Iterator[dict[str, Any]]:
    for row in context.stream():
        yield dict(zip(row.keys(), cells(row), strict=True))
