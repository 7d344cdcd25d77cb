"""The conformance suite for formats and masks of other packages: good ones pass, and each fault is found."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest

from stream_app.exports.columns import Column, quote_name
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.json import NdjsonFormat
from stream_app.exports.masks.registry import MASKS
from stream_app.plugins import INTERFACE, Document, Mask, Tally
from stream_app.plugins.conformance.cases import NAMES
from stream_app.plugins.conformance.database import ConformanceDatabase
from stream_app.plugins.conformance.formats import FormatConformance, SourceLost, Table
from stream_app.plugins.conformance.masks import MaskConformance
from tests.integration.exports.test_conformance import NULL, read_csv, read_ndjson


class Csv(CsvFormat):
    interface = INTERFACE


class Ndjson(NdjsonFormat):
    interface = INTERFACE


class TestCsv(FormatConformance):
    format = Csv()
    options = {"null": NULL, "guard_formulas": False}  # noqa: RUF012

    def read(self, content: bytes) -> Table:
        return read_csv(content)


class TestNdjson(FormatConformance):
    format = Ndjson()
    names_when_empty = False

    def read(self, content: bytes) -> Table:
        return read_ndjson(content)


class SwallowsErrors(Csv):
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        try:
            yield from super().frame(chunks, document, tally)
        except SourceLost:
            return


class HoldsAllRows(Csv):
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        yield b"".join(list(super().frame(chunks, document, tally)))


class CountsChunks(Csv):
    """It writes an empty comment after each chunk, so the file depends on their sizes."""

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        for piece in super().frame(chunks, document, tally):
            yield piece + b"#\n"


class KeepsState(Csv):
    def __init__(self) -> None:
        self.rows = 0

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        self.rows = 0
        for piece in super().frame(chunks, document, tally):
            self.rows += 1
            yield piece
        yield b"%d\n" % self.rows


class CountsNoRows(Csv):
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        return super().frame(chunks, document, Tally())


class GrowsMore(Csv):
    growth = 0.5
    closing_bytes = 0


class CannotBePickled(Csv):
    def __init__(self) -> None:
        self.lock = threading.Lock()


class HasNoInterface(CsvFormat):
    pass


class LosesNames(Csv):
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        framed = super().frame(chunks, document, tally)
        next(framed)
        yield ",".join(f"c{number}" for number, _ in enumerate(document.columns)).encode() + b"\n"
        yield from framed


def suite_of(output: CsvFormat) -> Any:
    return type("Suite", (TestCsv,), {"format": output})()


class EmailSuite(MaskConformance):
    mask = type("OwnEmail", (MASKS["email"].__class__,), {"interface": INTERFACE})()
    examples = {"ada@example.com": "a***@example.com", "x": "***"}  # noqa: RUF012


class TestEmail(EmailSuite):
    """A mask of the service passes the suite for those of others."""


def mask_suite(sql: Callable[[Column], str]) -> MaskConformance:
    """Return the suite of a mask with this SQL."""
    own = {"interface": INTERFACE, "name": "own", "sql": lambda _, column: sql(column)}
    suite: MaskConformance = type("Suite", (EmailSuite,), {"mask": type("OwnMask", (Mask,), own)()})()
    return suite


MASK_FAULTS: list[tuple[str, Callable[[Any, ConformanceDatabase], None], type[Exception]]] = [
    (
        "{}::text",
        lambda suite, database: suite.test_it_never_shows_a_whole_text(database, "quotes"),
        AssertionError,
    ),
    (
        "{}::text || '*'",
        lambda suite, database: suite.test_it_never_shows_a_whole_text(database, "scripts"),
        AssertionError,
    ),
    (
        "coalesce({}::text, '*')",
        lambda suite, database: suite.test_it_never_shows_a_whole_text(database, "all null"),
        AssertionError,
    ),
    (
        "left({}, 1)",
        lambda suite, database: suite.test_it_works_for_columns_of_every_type(database, "bigint"),
        asyncpg.PostgresError,
    ),
    (
        "{}::text",
        lambda suite, database: suite.test_it_works_for_columns_of_every_type(database, "date"),
        AssertionError,
    ),
    (
        "'*'",
        lambda suite, database: suite.test_it_works_for_columns_of_every_name(database, "select"),
        AssertionError,
    ),
    ("'***'", lambda suite, database: suite.test_the_examples(database), AssertionError),
]


@pytest.mark.parametrize(("sql", "test", "error"), MASK_FAULTS)
def test_each_fault_of_a_mask_is_found(
    conformance_database: ConformanceDatabase,
    sql: str,
    test: Callable[[Any, ConformanceDatabase], None],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        test(mask_suite(lambda column: sql.format(quote_name(column.name))), conformance_database)


def test_a_mask_that_does_not_quote_the_column_is_found(
    conformance_database: ConformanceDatabase,
) -> None:
    unquoted = mask_suite(lambda column: f"'*' || left({column.name}, 0)")
    with pytest.raises(asyncpg.PostgresError):
        unquoted.test_it_works_for_columns_of_every_name(conformance_database, NAMES[0])


FAULTS: list[tuple[CsvFormat, Callable[[Any, ConformanceDatabase], None], type[BaseException]]] = [
    (
        SwallowsErrors(),
        FormatConformance.test_an_error_of_the_source_ends_the_file_with_this_error,
        BaseException,
    ),
    (HoldsAllRows(), FormatConformance.test_the_memory_does_not_grow_with_the_rows, AssertionError),
    (HoldsAllRows(), FormatConformance.test_it_holds_no_rows_unless_it_says_so, AssertionError),
    (CountsChunks(), FormatConformance.test_the_sizes_of_chunks_change_no_byte, AssertionError),
    (
        KeepsState(),
        FormatConformance.test_two_files_at_the_same_time_are_like_two_files_after_each_other,
        AssertionError,
    ),
    (CountsNoRows(), FormatConformance.test_the_rows_are_counted_for_the_progress, AssertionError),
    (GrowsMore(), FormatConformance.test_the_file_grows_as_its_attributes_say, AssertionError),
    (CannotBePickled(), FormatConformance.test_it_can_be_used_in_another_process, TypeError),
    (HasNoInterface(), lambda suite, _: suite.test_the_service_accepts_it(), AssertionError),
    (LosesNames(), FormatConformance.test_names_of_columns, AssertionError),
]


@pytest.mark.parametrize(("output", "test", "error"), FAULTS, ids=lambda value: type(value).__name__)
def test_each_fault_is_found(
    conformance_database: ConformanceDatabase,
    output: CsvFormat,
    test: Callable[[Any, ConformanceDatabase], None],
    error: type[BaseException],
) -> None:
    with pytest.raises(error):
        test(suite_of(output), conformance_database)
