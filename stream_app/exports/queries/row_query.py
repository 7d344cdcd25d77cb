"""The SQL of an export: the SELECT of its rows, and the statement that COPY runs. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    TableClause,
    Text,
    and_,
    cast,
    column,
    false,
    literal,
    literal_column,
    or_,
    select,
    table,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import quoted_name

from stream_app.datasets.caller import Caller
from stream_app.datasets.mask_names import is_mask_name
from stream_app.datasets.parameters import TYPES, parameter_texts
from stream_app.datasets.rights import RowChoice, row_choice
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.conditions import NamedType, comparable, conditions
from stream_app.exports.filters.whole_days import day_zone
from stream_app.exports.formats.base import Format
from stream_app.exports.masks.base import HASH_KEYS
from stream_app.exports.masks.registry import mask_expression, needs_keys
from stream_app.exports.plugins import ordinary_errors
from stream_app.exports.queries.encodings import is_lacking
from stream_app.exports.queries.sql_text import render, render_value, rendered
from stream_app.exports.sources.session_values import session_values
from stream_app.exports.tables.query_catalog import ORIGIN, origin_sql
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest, Options

_CANONICAL: dict[Kind, str] = {
    Kind.BOOLEAN: r"true|false",
    Kind.INTEGER: r"0|-?[1-9][0-9]{0,18}",
    Kind.UUID: r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
"""Patterns of the only texts that PostgreSQL writes for values of these kinds."""

_LIMITS = {"int2": 2**15, "int4": 2**31, "int8": 2**63, "oid": 2**32}


def equals_text_conditions(
    column: Column, target: ColumnElement[Any], user_id: str
) -> list[ColumnElement[bool]]:
    """Return the conditions for the rows of the user: ``target::text = user_id``, byte for byte.

    If the type's own ``=`` gives the same result for this id, it is the only condition, because an index can
    serve it. If it finds more rows (``citext``, a number with another scale), it is the condition for the
    index and the text is compared as well. For all other types only the text is compared.

    No id is an error: a user whose id the type or the encoding of the database cannot hold owns no rows.
    """
    if is_lacking(column.encoding, user_id):
        return [false()]
    if (canonical := _CANONICAL.get(column.kind)) is not None:
        if not re.fullmatch(canonical, user_id, re.ASCII) or not _fits(column, user_id):
            return [false()]
        return [_same(column, target, user_id)]
    if column.kind is Kind.ENUM:
        return [_same(column, target, user_id)] if user_id in column.labels else [false()]
    if column.kind is Kind.TEXT and column.base in ("text", "varchar") and column.deterministic:
        return [_same(column, target, user_id)]
    by_text = cast(target, Text).collate("C") == literal(user_id, String)
    searchable = column.kind is Kind.TEXT or (
        column.kind is Kind.NUMERIC and re.fullmatch(r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?", user_id, re.ASCII)
    )
    return [_same(column, target, user_id), by_text] if searchable else [by_text]


def _same(column: Column, target: ColumnElement[Any], user_id: str) -> ColumnElement[bool]:
    same: ColumnElement[bool] = comparable(target, column) == cast(
        literal(user_id, String), NamedType(column.cast or column.type)
    )
    return same


def _fits(column: Column, user_id: str) -> bool:
    if column.kind is not Kind.INTEGER:
        return True
    limit = _LIMITS[column.base]
    lowest = 0 if column.base == "oid" else -limit
    return lowest <= int(user_id) < limit


@dataclass(frozen=True, slots=True)
class RowQuery:
    """The query for the rows of one export.

    Attributes:
        select: returns ``columns`` in their order.
        session: settings of each transaction in which it runs, see :meth:`Source.snapshot`.
    """

    select: Select[Any]
    columns: tuple[Column, ...]
    session: Mapping[str, str] = field(default_factory=dict)


class _QueryOrigin(TableClause):
    """The query of a dataset, where a SELECT has the name of a table."""

    inherit_cache = False

    def __init__(self, sql: str) -> None:
        super().__init__(ORIGIN)
        self.sql = sql


@compiles(_QueryOrigin)
def _compile_origin(element: _QueryOrigin, _: object, **__: object) -> str:
    return origin_sql(element.sql)


def reference(name: str) -> ColumnElement[Any]:
    """Return the column ``name``, always quoted."""
    return column(quoted_name(name, quote=True))


def row_query(source_table: SourceTable, request: ExportRequest) -> RowQuery:
    """Return the query for the rows of ``request``.

    Args:
        source_table: the table as the caller of the request sees it.
        request: the request.

    Raises:
        Rejected: a column is unknown or repeated, a filter or parameter is wrong, a claim is missing, or the
            caller cannot use the scope.
    """
    chosen = _chosen(source_table, request)
    choice = row_choice(source_table.dataset, request.scope, Caller.of(request))
    known = {item.name: item for item in source_table.columns}
    hidden = set()
    for name in filter(None, (source_table.dataset.time, source_table.dataset.deleted_at)):
        if name not in known:
            known[name] = source_table.all_columns[name]
            hidden.add(name)
    zone = day_zone(request.options.timezone, source_table.dataset.timezone)
    wanted = conditions(request.filters, known, reference, hidden=hidden, zone=zone)
    origin = _origin(source_table, request)
    if choice is not None or source_table.dataset.session:
        owner = [] if choice is None else _conditions_of(source_table, choice)
        if wanted and source_table.has_computed_columns:
            # The user's rows are selected first, so that a computed column cannot fail on the rows of others.
            # A view or query that compares a setting of the session selects them, too.
            names = dict.fromkeys(
                (*_read_columns(source_table, chosen), *request.filters, *source_table.order_columns)
            )
            fenced = (
                select(*map(reference, names)).select_from(origin).where(*owner).offset(literal_column("0"))
            )
            # By the same name, because the SQL of a mask can write it before the name of a column.
            origin = fenced.subquery(quoted_name(source_table.name or ORIGIN, quote=True))
        else:
            wanted = [*owner, *wanted]
    statement = (
        select(*map(_shown, chosen))
        .select_from(origin)
        .where(*wanted)
        .order_by(*(reference(name) for name in source_table.order_columns))
    )
    session = session_values(source_table.dataset, Caller.of(request))
    if any(needs_keys(item.mask) for item in chosen):
        session[HASH_KEYS] = ""  # the source has the keys
    return RowQuery(statement, chosen, session)


def _origin(source_table: SourceTable, request: ExportRequest) -> FromClause:
    """Return the table, or the query with the values of its parameters, each as a typed constant."""
    texts = parameter_texts(source_table.dataset, request.parameters)
    if source_table.query is None:
        return table(
            quoted_name(source_table.name, quote=True), schema=quoted_name(source_table.schema, quote=True)
        )
    values = {
        name: render_value(
            cast(literal(text, String), NamedType(TYPES[source_table.dataset.parameters[name].type].sql))
        )
        for name, text in texts.items()
    }
    return _QueryOrigin(source_table.query.render(values))


def _shown(item: Column) -> ColumnElement[Any]:
    """Return the column's value, or what its mask shows of it."""
    if item.mask is None:
        return reference(item.name)
    return mask_expression(item.mask, item).label(quoted_name(item.name, quote=True))


def _read_columns(source_table: SourceTable, chosen: Sequence[Column]) -> tuple[str, ...]:
    """Return the names of the columns that ``chosen`` are calculated from."""
    if any(item.mask is not None and not is_mask_name(item.mask) for item in chosen):
        return tuple(source_table.all_columns)  # an expression can use each of them
    return tuple(item.name for item in chosen)


def _conditions_of(source_table: SourceTable, choice: RowChoice) -> list[ColumnElement[bool]]:
    return scope_conditions(source_table.all_columns[choice.column], reference(choice.column), choice.values)


def scope_conditions(
    column: Column, target: ColumnElement[Any], values: Sequence[str]
) -> list[ColumnElement[bool]]:
    """Return the conditions for the rows whose ``target``, as text, is one of ``values``."""
    if len(values) == 1:
        return equals_text_conditions(column, target, values[0])
    return [or_(*(and_(*equals_text_conditions(column, target, value)) for value in dict.fromkeys(values)))]


def _chosen(source_table: SourceTable, request: ExportRequest) -> tuple[Column, ...]:
    if not source_table.columns:
        raise Rejected(
            f"dataset {source_table.dataset.name!r} has no column that you can see",
            code="no_column",
            field="columns",
        )
    if request.columns is None:
        return source_table.columns
    known = {item.name: item for item in source_table.columns}
    for position, name in enumerate(request.columns):
        field = f"columns.{position}"
        if name not in known:
            raise Rejected(
                f"the dataset has no column {name!r}", code="unknown_column", field=field, allowed=known
            )
        if name in request.columns[:position]:
            raise Rejected(f"column {name!r} is repeated; name each column once", field=field)
    return tuple(known[name] for name in request.columns)


@dataclass(frozen=True, slots=True)
class CopyStatement:
    """The statement of an export.

    Attributes:
        rows: SQL that selects the rows.
        sql: SQL that selects and renders the rows.
        copy: options of COPY, with asyncpg's names.
    """

    rows: str
    sql: str
    copy: Mapping[str, Any]

    @classmethod
    def of(cls, query: RowQuery, file_format: Format, options: Options) -> Self:
        """Return the statement that renders the rows of ``query`` in ``file_format``.

        Raises:
            Rejected: the format cannot hold these columns.
        """
        untitled = options.model_copy(update={"title": None})  # titles differ, and would fill the cache
        copy_select, copy = _copy_select_sql(file_format, query.columns, untitled)
        selected = render(query.select)
        return cls(selected, f"WITH rows AS ({selected}) {copy_select}", copy)


@lru_cache(maxsize=64)
def _copy_select_sql(
    file_format: Format, columns: tuple[Column, ...], options: Options
) -> tuple[str, Mapping[str, Any]]:
    """Return the part that all exports with the same format and columns share. It is most of the SQL."""
    with ordinary_errors():
        copy_select = file_format.copy_select(columns, options)
    return rendered(copy_select.select), copy_select.copy
