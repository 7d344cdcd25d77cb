"""The conformance suite of a format: derive a class from :class:`FormatConformance` in a test module."""

import pickle
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, ClassVar, TypeAlias
from zoneinfo import ZoneInfo

import pytest

from stream_app.exports.formats.base import Document, Format, Tally
from stream_app.exports.formats.registry import check_format
from stream_app.exports.plugins import INTERFACE
from stream_app.plugins.conformance.cases import NAMES, TEXTS, VALUES
from stream_app.plugins.conformance.database import NO_LABELS, ConformanceDatabase, RenderedRows
from streaming_exporter.events import Options

Cell: TypeAlias = Any
Table: TypeAlias = tuple[list[str], list[tuple[Cell, ...]]]
"""The names of the columns, and the cells of each row, as a reader finds them in a file."""

MOMENT = datetime(2026, 11, 24, 6, tzinfo=UTC)
"""The time of the data in all files of the suite."""

MANY_ROWS = 2_000

FED_BYTES = 16 * 2**20
"""Bytes of the rows of a large file."""

HELD_BYTES = 8 * 2**20
"""Bytes that :meth:`~.Format.frame` can hold meanwhile."""


class SourceLost(Exception):
    """The error of a source that is lost while it is read."""


class FormatConformance:
    """Tests that every format has to pass.

    A subclass, whose name begins with ``Test``, sets :attr:`format` and defines :meth:`read`.

    Attributes:
        format: an object of the format.
        options: options of requests, as JSON, with which :meth:`read` can read the file.
        names_when_empty: whether a file without rows has the names of the columns.
    """

    format: ClassVar[Format]
    options: ClassVar[Mapping[str, Any]] = {}
    names_when_empty: ClassVar[bool] = True

    def read(self, content: bytes) -> Table:
        """Return what an independent reader finds in a file. A text is ``str``, NULL is ``None``."""
        raise NotImplementedError

    def shows(self, text: str | None) -> Cell:
        """Return the form in which a file shows a text: the text itself, unless the format changes some."""
        return text

    def test_the_service_accepts_it(self) -> None:
        check_format(self.format)
        assert getattr(self.format, "interface", None) == INTERFACE

    @pytest.mark.parametrize("case", TEXTS)
    def test_texts(self, conformance_database: ConformanceDatabase, case: str) -> None:
        texts = TEXTS[case]
        table = conformance_database.table(
            "id int PRIMARY KEY, value text, again text", [(n, text, text) for n, text in enumerate(texts)]
        )
        rows = self._rendered(conformance_database, table)
        names, cells = self.read(self._file(rows))
        assert names == (["id", "value", "again"] if texts or self.names_when_empty else [])
        assert [int(row[0]) for row in cells] == list(range(len(texts)))
        assert [row[1:] for row in cells] == [(self.shows(text),) * 2 for text in texts]

    def test_names_of_columns(self, conformance_database: ConformanceDatabase) -> None:
        quoted = ", ".join('"' + name.replace('"', '""') + '" text' for name in NAMES)
        table = conformance_database.table(f"id int PRIMARY KEY, {quoted}", [(7, *("x" for _ in NAMES))])
        names, cells = self.read(self._file(self._rendered(conformance_database, table)))
        assert names == ["id", *NAMES]
        assert [tuple(map(str, row)) for row in cells] == [("7", *("x" for _ in NAMES))]

    def test_three_hundred_columns(self, conformance_database: ConformanceDatabase) -> None:
        columns = ", ".join(f"c{number} int" for number in range(300))
        values = [tuple(row * 1000 + number for number in range(300)) for row in range(20)]
        names, cells = self.read(
            self._file(self._rendered(conformance_database, conformance_database.table(columns, values)))
        )
        assert names == [f"c{number}" for number in range(300)]
        assert [tuple(map(int, row)) for row in cells] == values

    def test_values_of_all_kinds(self, conformance_database: ConformanceDatabase) -> None:
        """Every type that PostgreSQL has can be written, also as NULL."""
        names = [f"c{number}" for number, _ in enumerate(VALUES)]
        kinds = ", ".join(f"{name} {kind}" for name, kind in zip(names, VALUES, strict=True))
        table = conformance_database.table(f"id int PRIMARY KEY, {kinds}")
        values = ", ".join(VALUES.values())
        conformance_database.execute(
            f"INSERT INTO {table} VALUES (1, {values}); INSERT INTO {table} VALUES (2)"
        )
        found, cells = self.read(self._file(self._rendered(conformance_database, table)))
        assert found == ["id", *names]
        assert [int(row[0]) for row in cells] == [1, 2]
        assert all(cell not in (None, "") for cell in cells[0])
        assert set(cells[1][1:]) <= {None, self.shows(None)}

    def test_labels_are_the_titles_of_columns(self, conformance_database: ConformanceDatabase) -> None:
        """A column without a label has its name as its title."""
        table = conformance_database.table("id int PRIMARY KEY, total int, note text", [(1, 2, "x")])
        labels = {"total": "Summe (€)", "id": 'A "quoted", title'}
        rows = self._rendered(conformance_database, table, labels, headers="labels")
        assert self.read(self._file(rows))[0] == [labels["id"], labels["total"], "note"]

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
    def test_times_of_a_time_zone_are_the_same_instants(
        self, conformance_database: ConformanceDatabase, zone: str
    ) -> None:
        """With an offset, or as the local time where a format has none. In autumn an hour comes twice."""
        instants = [datetime(2026, 10, 25, hour, 30, 15, tzinfo=UTC) for hour in range(3)]
        table = conformance_database.table("id int PRIMARY KEY, at timestamptz", list(enumerate(instants)))
        _, cells = self.read(self._file(self._rendered(conformance_database, table, timezone=zone)))
        for (_, cell), instant in zip(cells, instants, strict=True):
            found = cell if isinstance(cell, datetime) else datetime.fromisoformat(str(cell))
            local = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            assert found == (instant if found.tzinfo is not None else local)

    @pytest.mark.parametrize("locale", ["de-DE", "fr-CH", "en-US"])
    def test_a_locale_changes_no_number_of_rows(
        self, conformance_database: ConformanceDatabase, locale: str
    ) -> None:
        rows = self._rendered(
            conformance_database, self._many_rows(conformance_database), locale=locale, delimiter=","
        )
        assert len(self.read(self._file(rows))[1]) == MANY_ROWS

    def test_the_rows_are_counted_for_the_progress(self, conformance_database: ConformanceDatabase) -> None:
        tally = Tally()
        self._file(self._rendered(conformance_database, self._many_rows(conformance_database)), tally=tally)
        assert tally.rows == MANY_ROWS

    def test_the_sizes_of_chunks_change_no_byte(self, conformance_database: ConformanceDatabase) -> None:
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))
        whole = self._file(rows, per_chunk=len(rows.rows))
        assert all(self._file(rows, per_chunk=size) == whole for size in (1, 7, 333))

    def test_two_files_at_the_same_time_are_like_two_files_after_each_other(
        self, conformance_database: ConformanceDatabase
    ) -> None:
        """One object writes all files of a worker, in several threads."""
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))
        fewer = replace(rows, rows=rows.rows[:100])
        one, other = self._framed(rows, 10), self._framed(fewer, 10)
        together: tuple[list[bytes], list[bytes]] = ([], [])
        while True:
            steps = list(islice(one, 1)), list(islice(other, 1))
            if not any(steps):
                break
            together[0].extend(steps[0])
            together[1].extend(steps[1])
        assert (b"".join(together[0]), b"".join(together[1])) == (self._file(rows), self._file(fewer))

    def test_an_error_of_the_source_ends_the_file_with_this_error(
        self, conformance_database: ConformanceDatabase
    ) -> None:
        """Otherwise a part of the rows would be stored as a complete file."""
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))

        def lost() -> Iterator[bytes]:
            yield b"".join(rows.rows[:100])
            raise SourceLost

        with pytest.raises(SourceLost):
            list(self.format.frame(lost(), self._document(rows), Tally()))

    def test_the_memory_does_not_grow_with_the_rows(self, conformance_database: ConformanceDatabase) -> None:
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))
        chunk = b"".join(rows.rows)
        chunks = (chunk for _ in range(FED_BYTES // len(chunk)))
        framed = self.format.frame(chunks, self._document(rows), Tally())
        tracemalloc.start()
        try:
            for _ in framed:
                pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < HELD_BYTES, f"{peak:,} bytes were held for {FED_BYTES:,} bytes of rows"

    def test_the_file_grows_as_its_attributes_say(self, conformance_database: ConformanceDatabase) -> None:
        """``growth`` and ``closing_bytes`` decide where a file ends that must not exceed a size."""
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))
        empty = len(self._file(replace(rows, rows=())))
        most = sum(map(len, rows.rows)) * self.format.growth_of(rows.columns) + self.format.closing_bytes
        assert len(self._file(rows)) - empty <= most

    def test_it_holds_no_rows_unless_it_says_so(self, conformance_database: ConformanceDatabase) -> None:
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))
        written, before = 0, []

        def chunks() -> Iterator[bytes]:
            for row in rows.rows[:50]:
                before.append(written)
                yield row

        for piece in self.format.frame(chunks(), self._document(rows), Tally()):
            written += len(piece)
        grows = all(earlier < later for earlier, later in zip(before, [*before[1:], written], strict=True))
        assert grows or self.format.holds_rows

    def test_it_can_be_used_in_another_process(self, conformance_database: ConformanceDatabase) -> None:
        rows = self._rendered(conformance_database, self._many_rows(conformance_database))
        copied: Format = pickle.loads(pickle.dumps(self.format))
        framed = copied.frame(iter(rows.rows), self._document(rows), Tally())
        assert b"".join(framed) == self._file(rows, per_chunk=1)

    def _many_rows(self, database: ConformanceDatabase) -> str:
        return database.table(
            "id int PRIMARY KEY, name text, amount numeric(12,2), placed_at timestamptz",
            [(number, f"name {number} of a customer", number, MOMENT) for number in range(MANY_ROWS)],
        )

    def _rendered(
        self,
        database: ConformanceDatabase,
        table: str,
        labels: Mapping[str, str] = NO_LABELS,
        **options: Any,
    ) -> RenderedRows:
        asked = Options.model_validate({**self.options, **options})
        return database.render(table, self.format, asked, labels)

    def _document(self, rows: RenderedRows) -> Document:
        return Document("conformance", rows.columns, rows.options, MOMENT)

    def _framed(self, rows: RenderedRows, per_chunk: int, tally: Tally | None = None) -> Iterator[bytes]:
        waiting = iter(rows.rows)
        chunks = iter(lambda: b"".join(islice(waiting, per_chunk)), b"")
        return self.format.frame(chunks, self._document(rows), tally or Tally())

    def _file(self, rows: RenderedRows, *, per_chunk: int = 100, tally: Tally | None = None) -> bytes:
        return b"".join(self._framed(rows, per_chunk, tally))
