"""Columns and their types, as far as rendering and filters need them. Pure."""

import re
from dataclasses import dataclass, replace

from stream_app.datasets.typed_values import Kind as Kind
from stream_app.time_zones import TimeZone

MONEY = (19, 2)
"""Precision and scale of ``money`` in the locale that transactions run with."""

_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")


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
"""Kinds by the name of the base type. A domain has the kind of its base type."""


def kind_of(name: str, category: bytes) -> Kind:
    """Return the kind of a type that is not an array, by its name and ``typtype``."""
    return Kind.ENUM if category == b"e" else KIND_OF_TYPE.get(name, Kind.OTHER)


@dataclass(frozen=True, slots=True)
class DataType:
    """A type below any domains, with the types of its parts.

    Attributes:
        name: its ``pg_type.typname``. A type that only has the name of a built-in one has its schema before
            it: ``billing.money``.
        element: type of an array's elements.
        fields: names and types of a composite type's fields.
        bounds: type of the bounds of a range or multirange.
        has_json_cast: whether PostgreSQL's JSON functions use a cast of an extension for its values.
        zone: the time zone that instants are written in; ``None`` for UTC.

    A type without element, fields and bounds is a scalar.
    """

    name: str
    kind: Kind = Kind.OTHER
    element: "DataType | None" = None
    fields: tuple[tuple[str, "DataType"], ...] = ()
    bounds: "DataType | None" = None
    is_multirange: bool = False
    has_json_cast: bool = False
    zone: TimeZone | None = None

    @property
    def is_scalar(self) -> bool:
        """Whether the type has no parts."""
        return not (self.element or self.fields or self.bounds)

    def in_zone(self, zone: TimeZone) -> "DataType":
        """Return the type with all instants at every depth in ``zone``; itself if it has none."""
        if self.name == "timestamptz":
            return replace(self, zone=zone)
        element = self.element and self.element.in_zone(zone)
        bounds = self.bounds and self.bounds.in_zone(zone)
        fields = tuple((name, part.in_zone(zone)) for name, part in self.fields)
        if (element, bounds, fields) == (self.element, self.bounds, self.fields):
            return self
        return replace(self, element=element, bounds=bounds, fields=fields)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset.

    Attributes:
        type: the declared type as PostgreSQL writes it, such as ``numeric(18,6)``.
        base: name of the type below any domain, such as ``numeric``; for an array, of its elements' type. It
            is that of :attr:`DataType.name`.
        labels: values of an enum.
        cast: type that filter values are cast to (default: ``type``). It has no length or precision, so no
            value is cut or rounded to fit.
        equality, ordering: whether values of the type can be compared.
        pattern: whether its texts can be searched.
        deterministic: whether only texts with the same bytes are equal.
        declared: the type below any domains with its length or precision (default: ``type``).
        shape: the type with its parts.
        mask: the name or the SQL of the mask that replaces the values; ``None`` for the values themselves.
            The other attributes describe what the mask gives.
        caption: the text above the column in a file; empty for its name.
        number_format: the number format of Excel from the datasets file, such as ``#,##0.00``.
        is_key: whether it is part of a primary or foreign key, or an identity column.
        encoding: the encoding of the column's database.
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
    mask: str | None = None
    caption: str = ""
    number_format: str | None = None
    is_key: bool = False
    encoding: str = "UTF8"

    @property
    def title(self) -> str:
        """What a file calls the column: its caption, or else its name."""
        return self.caption or self.name

    @property
    def is_enum_domain(self) -> bool:
        """Whether it is a domain over an enum. PostgreSQL has operators only for the enum."""
        return self.kind is Kind.ENUM and self.declared not in ("", self.type)

    @property
    def zone(self) -> TimeZone | None:
        """The time zone of the column's instants; ``None`` for UTC, or if it has none."""
        return self.shape.zone if self.shape is not None else None

    def in_zone(self, zone: TimeZone) -> "Column":
        """Return the column with its instants in ``zone``; itself if it has none."""
        data_type = self.data_type
        zoned = data_type.in_zone(zone)
        return self if zoned is data_type else replace(self, shape=zoned)

    @property
    def data_type(self) -> DataType:
        """The type with its parts."""
        if self.shape is not None:
            return self.shape
        if self.kind is Kind.ARRAY:
            return DataType(f"_{self.base}", Kind.ARRAY, DataType(self.base, kind_of(self.base, b"b")))
        return DataType(self.base, self.kind)

    @property
    def precision(self) -> tuple[int, int] | None:
        """Precision and scale that a numeric column was declared with."""
        if self.base == "money":
            return MONEY
        declared = _NUMERIC.fullmatch(self.declared or self.type)
        return (int(declared[1]), int(declared[2])) if declared else None


def has_instants(item: Column) -> bool:
    """Return whether a file shows times of a column in its time zone: instants at any depth."""
    return _has_instants(item.data_type)


def _has_instants(data_type: DataType) -> bool:
    parts = (data_type.element, data_type.bounds, *(part for _, part in data_type.fields))
    return data_type.name == "timestamptz" or any(part is not None and _has_instants(part) for part in parts)


def quote_name(name: str) -> str:
    """Return ``name`` as a quoted identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return ``text`` as a constant of SQL, for servers with ``standard_conforming_strings``."""
    return "'" + text.replace("'", "''") + "'"
