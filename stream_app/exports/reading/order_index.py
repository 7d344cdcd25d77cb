"""Whether an index of a table has the order of a column, so that ranges of its values can be read by it.

The order of texts is that of a library of the operating system, or of ICU. After an upgrade of the library,
and on a standby with another operating system, an index can have the order of the other version. A search in
it then misses rows: PostgreSQL notes the version that a collation had, and warns, but still uses the index.
"""

import structlog

from stream_app.exports.columns import Column, Kind, quote_text
from stream_app.exports.sources.snapshot import Snapshot

log = structlog.get_logger(__name__)

_INDEX = """
    SELECT pg_catalog.pg_relation_size(attribute.attrelid)
           / pg_catalog.current_setting('block_size')::int AS pages,
        pg_catalog.current_setting('server_version_num')::int AS version,
        EXISTS (
            SELECT FROM pg_catalog.pg_index AS index
            JOIN pg_catalog.pg_class AS class ON class.oid = index.indexrelid
            JOIN pg_catalog.pg_am AS method ON method.oid = class.relam
            JOIN pg_catalog.pg_opclass AS operators ON operators.oid = index.indclass[0]
            WHERE index.indrelid = attribute.attrelid AND index.indisvalid AND index.indpred IS NULL
            AND index.indkey[0] = attribute.attnum AND method.amname = 'btree' AND operators.opcdefault
            AND index.indcollation[0] = attribute.attcollation
        ) AS has_index,
        changed.collation, changed.recorded, changed.actual,
        {has_parts} OR EXISTS (
            SELECT FROM pg_catalog.pg_collation AS used
            WHERE used.oid = attribute.attcollation AND used.collprovider = 'd'
        ) AS uses_default
    FROM pg_catalog.pg_attribute AS attribute
    LEFT JOIN LATERAL (
        SELECT used.collname AS collation, used.collversion AS recorded,
            pg_catalog.pg_collation_actual_version(used.oid) AS actual
        FROM pg_catalog.pg_collation AS used
        WHERE used.collprovider <> 'd' AND (
            used.oid = attribute.attcollation
            OR {has_parts} AND used.oid IN (SELECT rngcollation FROM pg_catalog.pg_range)
        )
        AND used.collversion IS DISTINCT FROM pg_catalog.pg_collation_actual_version(used.oid)
        ORDER BY used.oid LIMIT 1
    ) AS changed ON true
    WHERE attribute.attrelid = {table}::pg_catalog.regclass AND attribute.attname = {column}
"""
"""The pages of a table; whether an index has the order of a column; the collations of that order.

``collation`` is one that has another version than it had, with both versions; NULL if there is none. A
collation without a version, such as C, has NULL for both. Only one of them is NULL where the operating system
has changed to or from one whose library has no versions, such as musl.
"""

_DEFAULT_CHANGED = """
    SELECT 'default' AS collation, datcollversion AS recorded,
        pg_catalog.pg_database_collation_actual_version(oid) AS actual
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    AND datcollversion IS DISTINCT FROM pg_catalog.pg_database_collation_actual_version(oid)
"""
"""The default collation of the database with both versions, if it has another one than it had."""

DEFAULT_VERSIONS = 150_000
"""The first version of PostgreSQL that notes the version of a database's default collation."""

_WITHOUT_COLLATION = frozenset(
    {
        Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN, Kind.UUID, Kind.DATE, Kind.TIME, Kind.TIMESTAMP,
        Kind.TIMESTAMPTZ, Kind.INTERVAL, Kind.BYTES, Kind.ENUM,
    }
)  # fmt: skip
_OWN_COLLATION = frozenset({"text", "varchar", "bpchar", "name"})
"""Types that compare by the collation of their column alone. All others are taken to use the default
collation, too: ``jsonb``, ranges and ``citext`` do."""


async def pages_with_index(snapshot: Snapshot, table: str, lead: Column) -> int | None:
    """Return the pages of ``table``; ``None`` if no index has the order of the column ``lead``.

    ``table`` is the name as SQL. A server before PostgreSQL 15 does not know the version of its default
    collation, so it is taken for unchanged there.
    """
    has_parts = lead.kind not in _WITHOUT_COLLATION and lead.base not in _OWN_COLLATION
    found = await snapshot.first(
        _INDEX.format(
            table=quote_text(table),
            column=quote_text(lead.name),
            has_parts=str(has_parts).lower(),
        )
    )
    if found is None or not found["has_index"]:
        return None
    changed = found if found["collation"] is not None else None
    if changed is None and found["uses_default"] and found["version"] >= DEFAULT_VERSIONS:
        changed = await snapshot.first(_DEFAULT_CHANGED)
    if changed is not None:
        log.warning(
            "source.collation_changed",
            table=table,
            column=lead.name,
            collation=changed["collation"],
            recorded_version=changed["recorded"],
            actual_version=changed["actual"],
        )
        return None
    return int(found["pages"])
