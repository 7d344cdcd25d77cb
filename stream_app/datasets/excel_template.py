"""Excel templates: checks whether a template fits its dataset, and finds its captions."""

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import cast
from zipfile import BadZipFile

from openpyxl import Workbook, load_workbook
from openpyxl.cell.cell import MergedCell
from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.utils.datetime import CALENDAR_WINDOWS_1900
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet.worksheet import Worksheet

from stream_app.datasets.template_error import TemplateError

# They are about parts that openpyxl does not keep, which template_losses names. The filter is for the whole
# process, because one for a call is not safe with threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"openpyxl\.")

HOW_TO_NAME = "name the row of its captions with template_header in the datasets file"


def read_template(path: Path) -> bytes:
    """Return the content of the file.

    Raises:
        TemplateError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise TemplateError(f"the template {path.name!r} cannot be read: {error.strerror}") from error


def open_template(content: bytes) -> Workbook:
    """Return the workbook as one that is no template, with dates that count from 1900.

    openpyxl saves a template (``.xltx``, ``.xltm``) as one, and Excel does not open that as ``.xlsx``. The
    dates of the rows count from 1900: in a workbook with "Use 1904 date system" each would be four years and
    a day later. openpyxl writes the workbook's own dates anew.

    Raises:
        TemplateError: openpyxl cannot read it.
    """
    try:
        book = load_workbook(BytesIO(content))
    except (InvalidFileException, BadZipFile, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise TemplateError(f"the template is not an Excel workbook (.xlsx): {error}") from error
    book.epoch, book.template = CALENDAR_WINDOWS_1900, False
    return book


def find_sheet(book: Workbook, dataset: str) -> Worksheet:
    """Return the sheet for the rows: the one with the dataset's name, or the active one, or the first one.

    Raises:
        TemplateError: the workbook has no worksheet.
    """
    named = book[dataset] if dataset in book.sheetnames else book.active
    if isinstance(named, Worksheet):
        return named
    if not book.worksheets:
        raise TemplateError("the template has no worksheet")
    return cast(Worksheet, book.worksheets[0])


def find_header_row(sheet: Worksheet, columns: Sequence[str], row: int | None = None) -> int:
    """Return the number of the row with a caption for each of ``columns``, in adjacent cells from A.

    ``row`` is the row that the datasets file names. Without it the row is found by captions that are the
    columns' names, or by an Excel table with the same width. The result is 0 for an empty sheet.

    Raises:
        TemplateError: there is no such row, or more than one row is possible.
    """
    width = len(columns)
    texts = {number: _texts(sheet, number) for number in range(1, sheet.max_row + 1)}
    if row is not None:
        if len(texts.get(row, ())) != width:
            raise TemplateError(
                f"template_header = {row}: that row of sheet {sheet.title!r} has "
                f"{len(texts.get(row, ()))} captions from cell A{row} on, but the dataset has {width} columns"
            )
        return _unmerged(sheet, row, width)
    if not any(cell.value is not None for cells in sheet.iter_rows() for cell in cells):
        return 0
    fitting = [number for number, found in texts.items() if len(found) == width]
    named = [number for number in fitting if _same_words(texts[number], columns)]
    tables = [
        head
        for left, head, right, _ in (range_boundaries(table.ref) for table in sheet.tables.values())
        if (left, right) == (1, width) and head in fitting
    ]
    for found in (named, tables):
        if len(found) == 1:
            return _unmerged(sheet, found[0], width)
    if not fitting:
        raise TemplateError(
            f"sheet {sheet.title!r} has no row of {width} captions from column A to "
            f"{get_column_letter(width)}, one for each of the dataset's columns ({', '.join(columns)}); "
            f"put them there, or {HOW_TO_NAME}"
        )
    # Sample rows can follow directly below the captions.
    if fitting != list(range(fitting[0], fitting[0] + len(fitting))):
        rows = ", ".join(map(str, fitting))
        raise TemplateError(
            f"each of the rows {rows} of sheet {sheet.title!r} could have the captions; {HOW_TO_NAME}"
        )
    return _unmerged(sheet, fitting[0], width)


def column_positions(sheet: Worksheet, row: int, columns: Sequence[str]) -> Mapping[str, int]:
    """Return for each of ``columns`` the number of the sheet's column with its caption and style.

    Captions that equal the columns' names are found by name. Other captions are in the order of the columns.
    """
    texts = _texts(sheet, row)
    exact = [text.strip() for text in texts]
    if sorted(exact) == sorted(columns):  # names of columns can differ only by case
        return {name: exact.index(name) + 1 for name in columns}
    if _same_words(texts, columns):
        return {name: _words(texts).index(name.casefold()) + 1 for name in columns}
    return {name: number for number, name in enumerate(columns, 1)}


def check_template(path: Path, dataset: str, columns: Sequence[str] | None, row: int | None) -> None:
    """Check whether a template fits, as far as that is possible without the database.

    Raises:
        TemplateError: the template does not fit.
    """
    sheet = find_sheet(open_template(read_template(path)), dataset)
    if columns is not None:
        find_header_row(sheet, columns, row)
    elif row is not None and not _texts(sheet, row):
        raise TemplateError(f"template_header = {row}: that row of sheet {sheet.title!r} has no captions")


def _texts(sheet: Worksheet, row: int) -> list[str]:
    """Return the captions of a row, or none if it has anything but texts in adjacent cells from A."""
    values = [cell.value for cell in sheet[row]] if row <= sheet.max_row else []
    while values and values[-1] is None:
        values.pop()
    return [str(value) for value in values] if all(isinstance(value, str) for value in values) else []


def _words(texts: Sequence[str]) -> list[str]:
    return [text.strip().casefold() for text in texts]


def _same_words(texts: Sequence[str], columns: Sequence[str]) -> bool:
    return sorted(_words(texts)) == sorted(name.casefold() for name in columns)


def _unmerged(sheet: Worksheet, row: int, width: int) -> int:
    for line in (row, row + 1):
        for index in range(1, width + 1):
            if isinstance(sheet.cell(line, index), MergedCell):
                raise TemplateError(f"row {line} of sheet {sheet.title!r} has merged cells; unmerge them")
    return row
