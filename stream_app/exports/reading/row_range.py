"""Ranges of the rows of an export: their SQL, their JSON, and sequences of very many of them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, overload

from sqlalchemy import TableClause, literal_column

from stream_app.exports.columns import quote_name, quote_text
from stream_app.exports.queries.row_query import RowQuery
from streaming_exporter.errors import Outage


@dataclass(frozen=True, slots=True)
class RowRange:
    """A range of an export's rows. Without any attribute it has all rows.

    Attributes:
        first_page: number of the first page; ``None`` if the rows are not cut at pages.
        end_page: number of the page after the last one; ``None`` means no end.
        storage: the file of the table that has these pages (``pg_relation_filenode``).
        column: name of the column that the rows are cut by; ``None`` if they are not cut by values.
        type: SQL name of its type.
        after: the rows have greater values than this; ``None`` means no lower bound.
        until: the rows have no greater values than this; ``None`` means no upper bound.
        is_null: the rows are those whose value is NULL. All other ranges with a column leave them out.
    """

    first_page: int | None = None
    end_page: int | None = None
    storage: int | None = None
    column: str | None = None
    type: str | None = None
    after: str | None = None
    until: str | None = None
    is_null: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the range as a JSON object."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in found.items() if value is not None and value is not False}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the range that :meth:`to_json` has written.

        Raises:
            Outage: a newer version has written it with an attribute that this one does not have. Without it
                the range would have other rows; a worker with the newer version can read it.
        """
        unknown = sorted(value.keys() - set(cls.__slots__))
        if unknown:
            raise Outage(f"a newer version has planned this range of rows: {', '.join(unknown)}")
        return cls(**value)

    @property
    def condition(self) -> str:
        """The SQL condition for the rows of the range."""
        return " AND ".join(self._conditions()) or "true"

    def apply(self, query: RowQuery) -> RowQuery:
        """Return the query for those rows of ``query`` that are in the range."""
        if self == RowRange():
            return query
        return narrowed(query, self.condition)

    def _conditions(self) -> Iterator[str]:
        if self.first_page is not None:
            yield f"ctid >= '({self.first_page},0)'::pg_catalog.tid"
        if self.end_page is not None:
            yield f"ctid < '({self.end_page},0)'::pg_catalog.tid"
        if self.column is None:
            return
        name = quote_name(self.column)
        if self.is_null:
            yield f"{name} IS NULL"
        if self.after is not None:
            yield f"{name} > {quote_text(self.after)}::{self.type}"
        if self.until is not None:
            yield f"{name} <= {quote_text(self.until)}::{self.type}"


def narrowed(query: RowQuery, condition: str) -> RowQuery:
    """Return the query for those rows of ``query`` that fulfil the condition of a range.

    The table had no child when its rows were cut. One that is attached meanwhile must not be in the later
    ranges: PostgreSQL looks up children anew for each statement.
    """
    chosen = query.select
    for origin in query.select.get_final_froms():
        if isinstance(origin, TableClause):
            chosen = chosen.with_hint(origin, "ONLY", "postgresql")
    return replace(query, select=chosen.where(literal_column(condition)))


ALL_ROWS = (RowRange(),)
"""The only range of rows that cannot be cut."""


class _LazyRanges(Sequence[RowRange]):
    """Ranges that are made when they are read: an export of a terabyte has hundreds of thousands."""

    __slots__ = ()

    @overload
    def __getitem__(self, number: int) -> RowRange: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[RowRange, ...]: ...
    def __getitem__(self, number: int | slice) -> RowRange | tuple[RowRange, ...]:
        found = range(len(self))[number]
        return self._made(found) if isinstance(found, int) else tuple(map(self._made, found))

    def _made(self, number: int) -> RowRange:
        """Return range ``number``, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class PageRanges(_LazyRanges):
    """A table of ``pages`` pages, cut into up to ``most`` ranges whose sizes differ by one page at most.

    ``storage`` is that of :class:`RowRange`.
    """

    pages: int
    most: int
    storage: int | None = None

    def __len__(self) -> int:
        return min(self.most, self.pages)

    def _made(self, number: int) -> RowRange:
        start, end = (self.pages * each // len(self) for each in (number, number + 1))
        # The last range has no end: it costs nothing, and no page can be missed.
        return RowRange(
            first_page=start, end_page=None if number + 1 == len(self) else end, storage=self.storage
        )


@dataclass(frozen=True, slots=True)
class ValueRanges(_LazyRanges):
    """The ranges between ``bounds``, which ascend, in the attributes of ``of_lead``.

    ``has_null``: a range of its own has the rows whose value is NULL.
    """

    of_lead: RowRange
    bounds: tuple[str, ...]
    has_null: bool

    def __len__(self) -> int:
        return len(self.bounds) + 1 + self.has_null

    def _made(self, number: int) -> RowRange:
        bounds = self.bounds
        if number > len(bounds):
            return replace(self.of_lead, is_null=True)
        after = bounds[number - 1] if number else None
        return replace(self.of_lead, after=after, until=bounds[number] if number < len(bounds) else None)
