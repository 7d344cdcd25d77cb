"""What a column is, as far as rendering and filtering care. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MONEY = (19, 2)
"""Digits that the values of ``money`` have in the locale that transactions run with."""

_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")


class Kind(StrEnum):
    """Families of PostgreSQL types that are rendered alike; ``OTHER`` is rendered as its text."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMERIC = "numeric"
    FLOAT = "float"
    TEXT = "text"
    UUID = "uuid"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    INTERVAL = "interval"
    JSON = "json"
    BYTES = "bytes"
    ARRAY = "array"
    ENUM = "enum"
    OTHER = "other"


KIND_OF_TYPE: dict[str, Kind] = {
    "bool": Kind.BOOLEAN,
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "oid": Kind.INTEGER,
    "numeric": Kind.NUMERIC,
    "money": Kind.NUMERIC,
    "float4": Kind.FLOAT,
    "float8": Kind.FLOAT,
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.TEXT,
    "name": Kind.TEXT,
    "citext": Kind.TEXT,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "interval": Kind.INTERVAL,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
    "bytea": Kind.BYTES,
}
"""By ``pg_type.typname`` of the base type (a domain counts as what it is over)."""


def kind_of(name: str, category: bytes) -> Kind:
    """The kind of a type that is no array, by its ``typname`` and ``typtype``."""
    return Kind.ENUM if category == b"e" else KIND_OF_TYPE.get(name, Kind.OTHER)


@dataclass(frozen=True, slots=True)
class DataType:
    """A type below any domains, with the types that it is made of.

    ``name`` is its ``pg_type.typname``. An array has an ``element``, a composite type ``fields``, a range or
    multirange ``bounds``; what has none of them is a scalar.
    """

    name: str
    kind: Kind = Kind.OTHER
    element: "DataType | None" = None
    fields: tuple[tuple[str, "DataType"], ...] = ()
    bounds: "DataType | None" = None
    is_multirange: bool = False
    has_json_cast: bool = False
    """Whether an extension has PostgreSQL's JSON functions write something else than its text."""

    @property
    def is_scalar(self) -> bool:
        """Whether it has no parts."""
        return not (self.element or self.fields or self.bounds)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset.

    ``type`` is the declared type as PostgreSQL spells it (``numeric(18,6)``), ``base`` the name of the
    type below any domain (``numeric``; for an array that of its elements), ``labels`` an enum's values.
    ``cast`` is the type, without length or precision, that filter values are cast to, so that none is cut
    or rounded to fit (default: ``type``). ``equality`` and ``ordering`` say whether values of the type
    compare, ``pattern`` whether its texts can be searched, ``deterministic`` whether only texts of the same
    bytes are equal. ``declared`` is the type below any domains with its length or precision (default:
    ``type``), ``shape`` what the type is made of.
    """

    name: str
    type: str
    base: str
    kind: Kind
    nullable: bool = True
    labels: tuple[str, ...] = ()
    cast: str = ""
    equality: bool = True
    ordering: bool = True
    pattern: bool = True
    deterministic: bool = True
    declared: str = ""
    shape: DataType | None = None

    @property
    def data_type(self) -> DataType:
        """What the type is made of."""
        if self.shape is not None:
            return self.shape
        if self.kind is Kind.ARRAY:
            return DataType(f"_{self.base}", Kind.ARRAY, DataType(self.base, kind_of(self.base, b"b")))
        return DataType(self.base, self.kind)

    @property
    def precision(self) -> tuple[int, int] | None:
        """Digits in all and behind the point that a numeric column was declared with."""
        if self.base == "money":
            return MONEY
        declared = _NUMERIC.fullmatch(self.declared or self.type)
        return (int(declared[1]), int(declared[2])) if declared else None


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


def assemble_type(oid: int, rows: Mapping[int, TypeRow]) -> DataType:
    """The type with all its parts, domains replaced by what they are over.

    A type is no part of itself, so this ends. One that is not among ``rows`` is rendered as its text.
    """
    row = rows.get(oid)
    if row is None:
        return DataType("")
    if row.category == b"d":
        return assemble_type(row.base, rows)
    return DataType(
        row.name,
        kind_of(row.name, row.category),
        element=assemble_type(row.element, rows) if row.element else None,
        fields=tuple((name, assemble_type(part, rows)) for name, part in row.fields),
        bounds=assemble_type(row.bounds, rows) if row.bounds else None,
        is_multirange=row.category == b"m",
        # A composite type without fields is {} to PostgreSQL's JSON functions, and () elsewhere.
        has_json_cast=row.has_json_cast or (row.category == b"c" and not row.fields),
    )
