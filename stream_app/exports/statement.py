"""From a request to the SELECT that yields its rows, before any format. Pure."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, column, select, table
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.elements import quoted_name

from stream_app.errors import Rejected
from stream_app.events import ExportRequest
from stream_app.exports.catalog import Table
from stream_app.exports.columns import Column
from stream_app.exports.filters import conditions

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
    if source.dataset.time:
        known.setdefault(source.dataset.time, source.every[source.dataset.time])
    origin = table(quoted_name(source.name, quote=True), schema=quoted_name(source.schema, quote=True))
    statement = (
        select(*(reference(item.name) for item in chosen))
        .select_from(origin)
        .where(*conditions(request.filters, known, reference))
        .order_by(*(reference(name) for name in source.order))
    )
    if request.scope == "own":
        if source.dataset.owner is None:
            raise Rejected(
                f"dataset {source.dataset.name!r} has no owner column, so nobody owns rows of it",
                field="scope",
                allowed=["all"],
            )
        owner = {source.dataset.owner: source.every[source.dataset.owner]}
        statement = statement.where(*conditions({source.dataset.owner: request.user_id}, owner, reference))
    return Rows(statement, chosen)


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
