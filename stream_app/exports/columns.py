"""What a column is, as far as rendering and filtering care. Pure."""

from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset.

    ``type`` is the declared type as PostgreSQL spells it (``numeric(18,6)``), ``base`` the name of the
    type below any domain (``numeric``; for an array that of its elements), ``labels`` an enum's values.
    ``cast`` is the type, without length or precision, that filter values are cast to, so that none is cut
    or rounded to fit (default: ``type``). ``equality`` and ``ordering`` say whether values of the type
    compare, ``pattern`` whether its texts can be searched, ``deterministic`` whether only texts of the same
    bytes are equal.
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
