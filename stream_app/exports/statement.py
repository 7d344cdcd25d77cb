"""From a request to the SELECT that yields its rows, before any format. Pure."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, column, literal_column, select, table
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.elements import quoted_name

from stream_app.errors import Rejected
from stream_app.events import ExportRequest
from stream_app.exports.catalog import Table
from stream_app.exports.columns import Column
from stream_app.exports.filters import conditions
from stream_app.exports.owner import owned

DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one export: ``select`` yields ``columns`` in their order, one row each."""

    select: Select[Any]
    columns: tuple[Column, ...]


def reference(name: str) -> ColumnElement[Any]:
    """The column called ``name``, always quoted."""
    return column(quoted_name(name, quote=True))


def rows_of(source: Table, request: ExportRequest) -> Rows:
    """The rows that ``request`` asks for.

    Raises:
        Rejected: unknown or repeated columns, bad filters, or scope ``own`` of what nobody owns.
    """
    chosen = _chosen(source, request)
    known = {item.name: item for item in source.columns}
    hidden = set()
    if source.dataset.time and source.dataset.time not in known:
        known[source.dataset.time] = source.every[source.dataset.time]
        hidden.add(source.dataset.time)
    wanted = conditions(request.filters, known, reference, hidden=hidden)
    origin: FromClause = table(
        quoted_name(source.name, quote=True), schema=quoted_name(source.schema, quote=True)
    )
    if request.scope == "own":
        owner = _owner(source, request)
        if wanted and source.computes:
            # Its own rows first: what a view computes is computed for nobody else's, and cannot fail on them.
            names = dict.fromkeys((*(item.name for item in chosen), *request.filters, *source.order))
            fenced = (
                select(*map(reference, names)).select_from(origin).where(*owner).offset(literal_column("0"))
            )
            origin = fenced.subquery("owned")
        else:
            wanted = [*owner, *wanted]
    statement = (
        select(*(reference(item.name) for item in chosen))
        .select_from(origin)
        .where(*wanted)
        .order_by(*(reference(name) for name in source.order))
    )
    return Rows(statement, chosen)


def _owner(source: Table, request: ExportRequest) -> list[ColumnElement[bool]]:
    name = source.dataset.owner
    if name is None:
        raise Rejected(
            f"dataset {source.dataset.name!r} has no owner column, so nobody owns rows of it",
            field="scope",
            allowed=["all"],
        )
    return owned(source.every[name], reference(name), request.user_id)


def render(statement: Select[Any]) -> str:
    """The statement as text, values quoted by SQLAlchemy, since COPY takes no parameters.

    Values are text constants with doubled quotes under ``standard_conforming_strings = on``, which every
    source connection sets.
    """
    return str(statement.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))


def _chosen(source: Table, request: ExportRequest) -> tuple[Column, ...]:
    if request.columns is None:
        return source.columns
    known = {item.name: item for item in source.columns}
    for position, name in enumerate(request.columns):
        field = f"columns.{position}"
        if name not in known:
            raise Rejected(f"there is no column {name!r}", code="unknown_column", field=field, allowed=known)
        if name in request.columns[:position]:
            raise Rejected(f"column {name!r} is named twice", field=field)
    return tuple(known[name] for name in request.columns)
