"""What is checked in a snapshot before its rows are read: the table, the window, the number of rows."""

import asyncio
from datetime import datetime

from stream_app.exports.columns import quote_name, quote_text
from stream_app.exports.queries.row_query import RowQuery
from stream_app.exports.queries.sql_text import render
from stream_app.exports.reading.row_range import RowRange
from stream_app.exports.sources.snapshot import FETCH_SECONDS, Snapshot, single_value
from stream_app.exports.tables.catalog import BEING_CHANGED, TableChanged
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ExportTask, RowLimit
from streaming_exporter.errors import Outage, Rejected, Retryable


async def check_table(snapshot: Snapshot, table: SourceTable, task: ExportTask) -> None:
    """Check that the table matches its description and has all rows of the task's window.

    Raises:
        TableChanged: the table was changed after it was described.
        Outage: the source is a standby that has not replayed all changes of the window yet.
    """
    if not await table.is_unchanged(snapshot):
        await snapshot.end()
        raise TableChanged
    if task.window is None:
        return
    end = datetime.fromisoformat(task.window["to"])
    if snapshot.as_of < end or (snapshot.is_standby and snapshot.replayed_until is None):
        await snapshot.end()
        reached = snapshot.replayed_until if snapshot.is_standby else snapshot.as_of
        raise Outage(f"the source database has data up to {reached}, but the job's window ends at {end}")


REWRITTEN = """SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks AS held
    JOIN pg_catalog.pg_class AS c ON c.oid = held.relation
    WHERE held.pid = pg_catalog.pg_backend_pid() AND held.locktype = 'relation' AND held.granted
        AND held.database = (
            SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
        )
        AND c.relfilenode <> 0 AND c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid)
)"""
"""Whether a table that the transaction has locked has got new storage since its snapshot.

The rows of ``pg_class`` are those of the snapshot, and the function has the storage of now. Tables below
views and queries and the parts of partitioned tables are locked, too.
"""


async def check_storage(snapshot: Snapshot) -> None:
    """Check the tables that this transaction has read, or locked as reading does.

    A refresh truncates a table and fills it again in one transaction. A snapshot from before it, whose
    statement has waited for the refresh, sees an empty table. A table that is locked stays as it is.

    Raises:
        Retryable: a table was truncated or rewritten after the snapshot was taken.
    """
    if await single_value(snapshot.connection, REWRITTEN, FETCH_SECONDS) == "t":
        await snapshot.end()
        raise Retryable(BEING_CHANGED)


async def check_range(snapshot: Snapshot, table: SourceTable, row_range: RowRange) -> None:
    """Check that a part with a snapshot of its own still finds its rows where the plan has cut them.

    The other parts have possibly read the table as it was before. With new storage, rows are in other pages.
    The rows of a new child are in no range.

    Raises:
        Rejected: the table was rewritten, or has got its first child, since the parts were planned.
    """
    is_same = table.can_be_cut
    if is_same and row_range.storage is not None:
        name = quote_text(f"{quote_name(table.schema)}.{quote_name(table.name)}")
        # The lock comes first: until the transaction ends the table keeps the storage that is read here.
        sql = f"SELECT {table.locking_sql}, pg_catalog.pg_relation_filenode({name}::pg_catalog.regclass)"
        _, storage = (await single_value(snapshot.connection, sql, snapshot.timeout)).split("\t")
        is_same = storage == str(row_range.storage)
    if not is_same:
        await snapshot.end()
        raise Rejected(
            "the table was rewritten or changed while the parts of the export were read, as by VACUUM FULL "
            "or TRUNCATE, so rows could be missing or twice; request the export again",
            code="table_rewritten",
        )


async def check_row_count(snapshot: Snapshot, query: RowQuery, limit: RowLimit | None) -> int | None:
    """Reject an export with more rows than ``limit`` before it starts.

    Returns:
        The number of rows, or ``None`` if there is no limit: then they are not counted.
    """
    if limit is None:
        return None
    unordered = await asyncio.to_thread(render, query.select.order_by(None))
    count = await snapshot.count(unordered, limit.rows + 1)
    if count > limit.rows:
        raise Rejected(
            f"the export has more than {limit.rows:,} rows, the most that {limit.what} can have; "
            f"{limit.ways}",
            code="too_many_rows",
        )
    return count
