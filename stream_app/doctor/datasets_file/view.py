"""Finds out what a caller sees of a dataset or a bundle, and the SQL that would run."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.faults import nearest
from stream_app.datasets.file import DatasetsFile, load_datasets
from stream_app.datasets.format_choice import allowed_formats
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import ALL, OWN, has_own_rows, usable_scopes
from stream_app.exports.columns import Column
from stream_app.exports.filters.conditions import operators
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.masks.base import HASH_KEYS
from stream_app.exports.queries.presentation import settings_of
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.registry import PoolSize, Sources
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.rights import visible_table
from stream_app.exports.tables.source_table import SourceTable
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

SECONDS = 30.0
"""Time limit of the description of the dataset."""


@dataclass(frozen=True, slots=True)
class ColumnView:
    """A column as the caller sees it."""

    name: str
    type: str
    label: str | None
    mask: str | None
    operators: list[str]


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A dataset as the caller sees it.

    Attributes:
        user, roles, claims: the caller.
        scope: the scope of ``sql``.
        session: settings of the transaction, by name.
        sql: the statement that reads the rows; ``None`` if there is a ``problem``.
        problem: why the caller gets no rows with this scope.
    """

    name: str
    label: str | None
    description: str
    source: str
    origin: str
    user: str
    roles: list[str]
    claims: dict[str, Any]
    scopes: list[str]
    formats: list[str]
    max_rows: int | None
    retention_days: float | None
    encrypt: str | None
    timezone: str | None
    parameters: dict[str, str]
    order: list[str]
    columns: list[ColumnView]
    scope: str
    session: dict[str, str] = field(default_factory=dict)
    sql: str | None = None
    problem: str | None = None


async def view_dataset(
    settings: Settings,
    name: str,
    caller: Caller,
    *,
    scope: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> DatasetView:
    """Return what ``caller`` sees of the dataset ``name``, and the SQL for the rows of ``scope``.

    Without ``scope`` it is ``own`` if rows belong to users, else the first scope that the caller can use,
    else ``all``, which needs the role ``exports:all`` over HTTP.

    Raises:
        DatasetsFileError: the datasets file cannot be used.
        Rejected: there is no such dataset, or none for the caller.
        Retryable: the source database cannot be reached.
    """
    content = load_datasets(settings.datasets_file)
    dataset = _found(content, name)
    if not caller.has_any(dataset.roles):
        raise Rejected(
            f"dataset {name!r} does not exist for this caller, who needs one of the roles",
            code="unknown_dataset",
            allowed=dataset.roles,
        )
    sources = Sources(settings, content, PoolSize(2, lambda limit: 2))
    try:
        async with asyncio.timeout(SECONDS):
            table = visible_table(await Catalog(sources).table(dataset), caller)
    finally:
        await sources.close()
    scopes = usable_scopes(dataset, caller)
    chosen = scope or (OWN if has_own_rows(dataset) else next(iter(scopes), ALL))
    session, sql, problem = _statement(table, caller, chosen, parameters or {})
    return DatasetView(
        name=dataset.name,
        label=dataset.label,
        description=dataset.description,
        source=dataset.source,
        origin=dataset.table or f"query: {dataset.query}",
        user=caller.user_id,
        roles=sorted(caller.roles),
        claims=dict(caller.claims),
        scopes=scopes,
        formats=sorted(allowed_formats(dataset, FORMATS)),
        max_rows=dataset.max_rows,
        retention_days=dataset.retention_days,
        encrypt=dataset.encrypt,
        timezone=dataset.timezone,
        parameters={key: str(item.type) for key, item in dataset.parameters.items()},
        order=list(table.visible_order),
        columns=[_column(table.dataset, item) for item in table.columns],
        scope=chosen,
        session=session,
        sql=sql,
        problem=problem,
    )


def find_bundle(settings: Settings, name: str, caller: Caller) -> Bundle | None:
    """Return the bundle ``name``; ``None`` if it is a dataset.

    Raises:
        DatasetsFileError: the datasets file cannot be used.
        Rejected: there is neither, or the bundle is not for the caller.
    """
    dataset = _found(load_datasets(settings.datasets_file), name)
    if not isinstance(dataset, Bundle):
        return None
    if not caller.has_any(dataset.roles):
        raise Rejected(
            f"bundle {name!r} does not exist for this caller, who needs one of the roles",
            code="unknown_dataset",
            allowed=dataset.roles,
        )
    return dataset


def _found(content: DatasetsFile, name: str) -> Dataset:
    known = content.requestable
    if name not in known:
        raise Rejected(f"there is no dataset {name!r}{nearest(name, known)}", allowed=sorted(known))
    return known[name]


def _statement(
    table: SourceTable, caller: Caller, scope: str, parameters: Mapping[str, str]
) -> tuple[dict[str, str], str | None, str | None]:
    """Return the settings of the transaction and the SQL, or why there is none."""
    claims: dict[str, Any] = {
        **{name: item if isinstance(item, str) else list(item) for name, item in caller.claims.items()},
        **({"roles": sorted(caller.roles)} if caller.roles else {}),
    }
    try:
        request = ExportRequest.parse(
            {
                "user_id": caller.user_id,
                "export_type": table.dataset.name,
                "format": "csv",
                "scope": scope,
                **({"claims": claims} if claims else {}),
                **({"parameters": dict(parameters)} if parameters else {}),
            }
        )
        rows = row_query(table, table.resolve(request, datetime.now(UTC)))
    except Rejected as error:
        return {}, None, str(error)
    session = {name: value for name, value in rows.session.items() if name != HASH_KEYS}
    return session, render(rows.select), None


def _column(dataset: Dataset, column: Column) -> ColumnView:
    label = settings_of(dataset, column.name).label
    return ColumnView(column.name, column.type, label, column.mask, list(operators(column)))
