"""The tables of datasets as callers see them: without hidden columns, and with masks. Pure.

Whatever is done with a table for a caller uses :func:`visible_table`, :func:`read_visible` or
:func:`use_visible`: exports, estimates, the checks of requests and schedules, lists.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import ALL, hidden_columns, masked_columns, visible_dataset
from stream_app.exports.columns import Column
from stream_app.exports.masks.registry import masked_column
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.events import ExportRequest

Result = TypeVar("Result")


def visible_table(table: SourceTable, caller: Caller) -> SourceTable:
    """Return ``table`` as the caller sees it.

    Hidden columns are left out, and masked ones have :attr:`Column.mask`. The primary key has only columns
    whose values the caller sees. ``all_columns`` stays complete, because scopes and streams need it.

    Raises:
        Rejected: the dataset is not for the caller.
    """
    dataset = visible_dataset(table.dataset, caller)
    hidden, masked = hidden_columns(table.dataset, caller), masked_columns(table.dataset, caller)
    if not hidden and not masked:
        return table
    return replace(
        table,
        dataset=dataset,
        columns=tuple(
            _masked(table, item, masked[item.name]) if item.name in masked else item
            for item in table.columns
            if item.name not in hidden
        ),
        primary_key=tuple(name for name in table.primary_key if name not in hidden and name not in masked),
        template_columns=table.template_columns or tuple(item.name for item in table.columns),
    )


async def read_visible(catalog: Catalog, dataset: Dataset, caller: Caller) -> SourceTable:
    """Return the table of ``dataset`` as the caller sees it; see :meth:`Catalog.table`.

    Raises:
        Rejected: the dataset is not for the caller; and what :meth:`Catalog.table` raises.
    """
    return visible_table(await catalog.table(dataset), caller)


async def use_visible(
    catalog: Catalog, dataset: Dataset, caller: Caller, work: Callable[[SourceTable], Awaitable[Result]]
) -> Result:
    """Call ``work`` with the table of ``dataset`` as the caller sees it; see :meth:`Catalog.use`.

    Raises:
        Rejected: the dataset is not for the caller; and what :meth:`Catalog.use` raises.
    """

    async def use(table: SourceTable) -> Result:
        return await work(visible_table(table, caller))

    return await catalog.use(dataset, use)


async def use_all_visible(
    catalog: Catalog,
    datasets: Sequence[Dataset],
    caller: Caller,
    work: Callable[[Sequence[SourceTable]], Awaitable[Result]],
) -> Result:
    """Call ``work`` with the tables of ``datasets`` as the caller sees them; see :meth:`Catalog.use_all`.

    Raises:
        Rejected: a dataset is not for the caller; and what :meth:`Catalog.use_all` raises.
    """

    async def use(tables: Sequence[SourceTable]) -> Result:
        return await work([visible_table(table, caller) for table in tables])

    return await catalog.use_all(datasets, use)


def shows_planner_numbers(table: SourceTable, request: ExportRequest) -> bool:
    """Return whether the planner's estimates of the rows can be shown to the caller.

    The planner's statistics are about all rows of the table, so the caller must be able to see all of them.
    """
    return request.scope == ALL and not table.dataset.session and not table.has_row_security


def _masked(table: SourceTable, column: Column, mask: str) -> Column:
    """Return the column as those see it who do not see its values."""
    return table.masked_columns.get(column.name) or masked_column(mask, column)
