"""Steps of migrations that lock no table for long, and can be repeated after a failure.

Each runs outside of a transaction, so the steps before it are committed if it fails. So every other step of
such a migration must be repeatable too (``if_not_exists``).
"""

import time
from collections.abc import Sequence
from typing import Any

import structlog
from alembic import op
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from stream_app.db.engine import LOCK_NOT_AVAILABLE
from streaming_exporter.errors import Locked

log = structlog.get_logger(__name__)

LOCK_MILLISECONDS = 2_000
"""How long a change of a table waits for its lock. Later statements on the table wait behind it.

It is shorter than the lock time-out of the service's transactions. It is longer than PostgreSQL's
``deadlock_timeout`` of 1 s, after which PostgreSQL cancels an autovacuum that holds the lock.
"""

PAUSE_SECONDS = 1.0
"""Pause between two tries, in which the waiting statements can continue."""

TRIES = 100
"""Number of tries. With :data:`LOCK_MILLISECONDS` and :data:`PAUSE_SECONDS` they take five minutes."""

_INVALID = text(
    "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT (indisvalid AND indisready)"
)

_TRIGGER = text("SELECT 1 FROM pg_trigger WHERE tgname = :name AND tgrelid = to_regclass(:table)")


def create_index(name: str, table: str, columns: Sequence[str | TextClause], **options: Any) -> None:
    """Create an index without blocking writers.

    A failed build leaves an invalid index, for which ``IF NOT EXISTS`` would do nothing. So it is dropped
    first. The build waits until every older transaction of the database has ended.
    """
    with op.get_context().autocommit_block():
        if op.get_bind().scalar(_INVALID, {"name": name}):
            log.info("index.dropped", index=name, reason="an earlier build of it failed")
            op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)


def drop_index(name: str, table: str) -> None:
    """Drop an index without blocking the table. It waits until every transaction that uses it has ended."""
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)


def alter_table(table: str, *actions: str) -> None:
    """Alter a table in one statement. It waits for the lock only shortly, and is repeated.

    Args:
        table: the name of the table.
        actions: such as ``ADD COLUMN IF NOT EXISTS …`` with a constant default; they must be repeatable.

    Raises:
        Locked: a transaction held the table during every try.
    """
    _lock_and_execute(f"ALTER TABLE {table} {', '.join(actions)}", table)


def create_trigger(name: str, table: str, definition: str) -> None:
    """Create a trigger if the table has none with this name, with short waits as :func:`alter_table`.

    Args:
        name: the name of the trigger.
        table: the table, whose writers wait.
        definition: the SQL behind the name in ``CREATE TRIGGER``.

    Raises:
        Locked: a transaction held the table during every try.
    """
    if not op.get_bind().scalar(_TRIGGER, {"name": name, "table": table}):
        _lock_and_execute(f"CREATE TRIGGER {name} {definition}", table)


def _lock_and_execute(statement: str, table: str) -> None:
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = {LOCK_MILLISECONDS}")
        try:
            _until_locked(statement, table)
        finally:
            op.execute("SET lock_timeout = 0")


def _until_locked(statement: str, table: str) -> None:
    for attempt in range(1, TRIES + 1):
        try:
            op.execute(statement)
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            log.warning("table.locked", table=table, attempt=attempt, of=TRIES)
        time.sleep(PAUSE_SECONDS)
    raise Locked(
        f"state database: a transaction has locked the table {table} (pg_stat_activity shows it); "
        "end it, and run `exporter migrate` again, which continues where it stopped"
    )
