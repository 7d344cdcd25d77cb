"""Describes the queries of datasets, and the SQL expressions that mask columns: their columns and types.

PostgreSQL prepares the query and describes its result. Nothing runs, and no row is read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import structlog

from stream_app.datasets.mask_names import is_mask_name
from stream_app.datasets.models import Dataset
from stream_app.datasets.parameters import TYPES
from stream_app.datasets.query_text import ParsedQuery, parse_query
from stream_app.exports.columns import KIND_OF_TYPE, quote_name
from stream_app.exports.masks.registry import expression_sql
from stream_app.exports.sources.errors import refused_statement
from stream_app.exports.sources.row_description import DescribedColumn
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.tables.catalog_queries import (
    LOCKED_ROWS_HIDDEN,
    RESULT_COLUMNS,
    TYPES_BY_OID,
    TypedColumn,
    TypeRow,
)
from streaming_exporter.errors import Outage, Rejected

log = structlog.get_logger(__name__)

LOCK_SECONDS = 5.0
"""Limit of a wait for the lock of a table that a query reads. The caller tries again later."""

UNNAMED = "?column?"
"""The name that PostgreSQL gives to a column without one."""

ORIGIN = "dataset"
"""The name of a query where a SELECT has the name of a table."""

PSEUDO_TYPE = b"p"
"""``typtype`` of types that no column of a table can have."""

_SEARCH_PATH = "SELECT pg_catalog.current_schemas(false)::text[] AS schemas"


@dataclass(frozen=True, slots=True)
class DescribedQuery:
    """A dataset's query as PostgreSQL describes it.

    Attributes:
        query: the query.
        columns: its columns.
        types: types with parts that they have.
        search_path: schemas in which PostgreSQL looks for names without one.
        fingerprint: a value that changes with each change of the columns.
        has_row_security: whether row-level security can hide rows from the service's role.
    """

    query: ParsedQuery
    columns: tuple[TypedColumn, ...]
    types: Mapping[int, TypeRow]
    search_path: tuple[str, ...]
    fingerprint: str
    has_row_security: bool


class UnusableQuery(Rejected):
    """The columns of a query, or of a mask, cannot be exported.

    Attributes:
        reason: why.
        column: the column. It is not in the text: the dataset can hide it from the user.
    """

    code = "unusable_query"

    def __init__(self, dataset: Dataset, reason: str, column: str | None) -> None:
        hint = "" if column is None else "; operators: the log has the column's name"
        super().__init__(f"dataset {dataset.name!r} cannot be exported at the moment: {reason}{hint}")
        self.reason = reason
        self.column = column


def origin_sql(query: str) -> str:
    """Return a query as SQL for FROM. Its last line can end with a comment."""
    return f"(\n{query}\n) AS {ORIGIN}"


def describing_origin(query: ParsedQuery, dataset: Dataset) -> str:
    """Return the query as SQL for FROM, with a parameter of SQL for each of its own."""
    values = {
        name: f"CAST(${number} AS {TYPES[parameter.type].sql})"
        for number, (name, parameter) in enumerate(dataset.parameters.items(), 1)
    }
    return origin_sql(query.render(values))


def describing_sql(query: ParsedQuery, dataset: Dataset) -> str:
    """Return the statement to prepare for the description of a query."""
    return f"SELECT * FROM {describing_origin(query, dataset)}"


def fingerprint_of(columns: Sequence[DescribedColumn]) -> str:
    """Return a value that changes with each change of the names and types of ``columns``."""
    text = repr([(item.name, item.type_oid, item.modifier) for item in columns])
    return hashlib.sha256(text.encode()).hexdigest()


async def describe_query(snapshot: Snapshot, dataset: Dataset, text: str) -> DescribedQuery:
    """Return the description of the query ``text`` of a dataset.

    Names without a schema are looked up as the role's own search path says, after ``pg_catalog``. The path is
    part of the description, because exports set another one.

    Raises:
        Rejected: a column has no name, no type of its own, or the same name as another one.

    The driver's errors pass: the query does not fit the database.
    """
    found = await snapshot.first(_SEARCH_PATH)
    schemas = tuple(found["schemas"]) if found is not None else ()
    path = tuple(dict.fromkeys((*(name for name in schemas if name != "pg_catalog"), "public")))
    await snapshot.set_search_path(path)
    query = parse_query(text, dataset.parameters)
    described = await _describe(snapshot, describing_sql(query, dataset))
    hidden = await snapshot.fetch(LOCKED_ROWS_HIDDEN)  # before other statements lock relations
    _check_names(dataset, described)
    columns, types = await _typed(snapshot, described)
    _check_types(dataset, columns)
    homes = sorted({item.home for item in columns})
    return DescribedQuery(
        query=query,
        columns=columns,
        types=types,
        search_path=tuple(dict.fromkeys((*path, *homes))),
        fingerprint=fingerprint_of(described),
        has_row_security=hidden[0]["filtered"],
    )


async def describe_masks(
    snapshot: Snapshot, dataset: Dataset, origin: str
) -> tuple[tuple[TypedColumn, ...], Mapping[int, TypeRow]]:
    """Return the types of the columns that SQL expressions mask, as they are with their masks.

    Args:
        snapshot: a snapshot with the search path of exports.
        dataset: the dataset.
        origin: the table or the query as SQL for FROM.

    Raises:
        Rejected: an expression has no type that a column can have.

    The driver's errors pass: an expression does not fit the table, or is not one value for each row.
    """
    expressions = {
        name: expression_sql(settings.mask)
        for name, settings in dataset.column_settings.items()
        if settings.mask is not None and not is_mask_name(settings.mask)
    }
    if not expressions:
        return (), {}
    listed = ", ".join(f"{sql} AS {quote_name(name)}" for name, sql in expressions.items())
    # A condition cannot have aggregates, window functions and functions that return sets: they would change
    # which rows there are.
    conditions = " AND ".join(f"{sql} IS NULL" for sql in expressions.values())
    columns, types = await _typed(
        snapshot, await _describe(snapshot, f"SELECT {listed} FROM {origin} WHERE {conditions}")
    )
    _check_types(dataset, columns)
    return columns, types


async def _describe(snapshot: Snapshot, sql: str) -> tuple[DescribedColumn, ...]:
    """Describe a statement with SQL of the datasets file, where a syntax error is no fault of the service.

    Raises:
        Rejected: it is no SQL that PostgreSQL can read.
        Outage: another session has locked one of the tables.
    """
    try:
        return await snapshot.describe(sql)
    except asyncpg.LockNotAvailableError as error:
        raise Outage(f"source database: {error}", code="table_locked") from error
    except asyncpg.PostgresSyntaxError as error:
        raise refused_statement(error) from error


async def _typed(
    snapshot: Snapshot, described: Sequence[DescribedColumn]
) -> tuple[tuple[TypedColumn, ...], Mapping[int, TypeRow]]:
    rows = await snapshot.fetch(
        RESULT_COLUMNS,
        [item.name for item in described],
        [item.type_oid for item in described],
        [item.modifier for item in described],
        [item.table_oid for item in described],
        [item.attribute for item in described],
    )
    columns = tuple(TypedColumn(**row) for row in rows)
    types: dict[int, TypeRow] = {}
    if any(item.base not in KIND_OF_TYPE and item.category != b"e" for item in columns):
        oids = sorted({item.type_oid for item in described})
        types = {row["oid"]: TypeRow(**row) for row in await snapshot.fetch(TYPES_BY_OID, oids)}
    return columns, types


def _check_names(dataset: Dataset, described: Sequence[DescribedColumn]) -> None:
    if not described:
        raise _unusable(dataset, "its query has no columns")
    names = [item.name for item in described]
    if UNNAMED in names:
        number = names.index(UNNAMED) + 1
        raise _unusable(dataset, f"column {number} of its query has no name; name it with AS")
    for name in names:
        if names.count(name) > 1:
            reason = "several columns of its query have the same name; rename them with AS"
            raise _unusable(dataset, reason, name)


def _check_types(dataset: Dataset, columns: Sequence[TypedColumn]) -> None:
    for item in columns:
        if item.category == PSEUDO_TYPE:
            reason = f"a column of its query, or a mask, has the type {item.type}; cast it to another type"
            raise _unusable(dataset, reason, item.name)


def _unusable(dataset: Dataset, reason: str, column: str | None = None) -> UnusableQuery:
    log.warning("dataset.query_unusable", dataset=dataset.name, reason=reason, column=column)
    return UnusableQuery(dataset, reason, column)
