"""What a type is made of, as far as its rendering depends on it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from stream_app.exports.columns import DataType, kind_of

TYPES = """
    WITH RECURSIVE used (oid) AS (
        SELECT atttypid FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
        UNION
        SELECT part.oid FROM used JOIN pg_type t ON t.oid = used.oid CROSS JOIN LATERAL (
            SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
            UNION ALL SELECT t.typelem WHERE t.typlen = -1 AND t.typelem <> 0
            UNION ALL SELECT a.atttypid FROM pg_attribute a
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT r.rngsubtype FROM pg_range r
                WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
        ) part
    )
    SELECT t.oid, t.typname AS name, t.typtype AS category, t.typbasetype AS base,
           CASE WHEN t.typlen = -1 THEN t.typelem ELSE 0 END AS element,
           (
               SELECT r.rngsubtype FROM pg_range r
               WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
           ) AS bounds,
           array(
               SELECT a.attname::text FROM pg_attribute a
               WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY a.attnum
           ) AS field_names,
           array(
               SELECT a.atttypid FROM pg_attribute a
               WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY a.attnum
           ) AS field_types,
           t.oid >= 16384 AND EXISTS (
               SELECT FROM pg_cast WHERE castsource = t.oid AND casttarget = 'json'::regtype
           ) AS has_json_cast
    FROM used JOIN pg_type t ON t.oid = used.oid
"""
"""Every type that the columns of a table are made of. ``rngmultitypid`` is not there before PostgreSQL 14."""


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A row of :data:`TYPES`; numbers are OIDs, 0 or ``None`` where there is no such part."""

    name: str
    category: bytes
    base: int
    element: int
    bounds: int | None
    fields: tuple[tuple[str, int], ...]
    has_json_cast: bool


def assembled(oid: int, rows: Mapping[int, TypeRow]) -> DataType:
    """The type with all its parts, domains replaced by what they are over.

    A type is no part of itself, so this ends. One that is not among ``rows`` is rendered as its text.
    """
    row = rows.get(oid)
    if row is None:
        return DataType("")
    if row.category == b"d":
        return assembled(row.base, rows)
    return DataType(
        row.name,
        kind_of(row.name, row.category),
        element=assembled(row.element, rows) if row.element else None,
        fields=tuple((name, assembled(part, rows)) for name, part in row.fields),
        bounds=assembled(row.bounds, rows) if row.bounds else None,
        is_multirange=row.category == b"m",
        # A composite type without fields is {} to PostgreSQL's JSON functions, and () elsewhere.
        has_json_cast=row.has_json_cast or (row.category == b"c" and not row.fields),
    )
