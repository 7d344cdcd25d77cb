"""Queries of PostgreSQL's catalog for a dataset's table, and their rows. They work from PostgreSQL 12 on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream_app.exports.columns import DataType, kind_of

_ATTRIBUTES = """pg_catalog.string_agg(
    pg_catalog.concat_ws(',', f.attnum, f.attname, f.atttypid, f.atttypmod, f.attcollation, f.attnotnull),
    ';' ORDER BY f.attnum
)"""


def fingerprint_expression(table: str) -> str:
    """Return an SQL expression whose value changes with each change of the table's columns.

    It changes also when a table without children gets the first one: from then on its rows cannot be cut.

    ``table`` is SQL whose value is the full name of the table.
    """
    return f"""(
        SELECT pg_catalog.hashtextextended(
            {_ATTRIBUTES} || CASE WHEN EXISTS (
                SELECT FROM pg_catalog.pg_inherits AS child
                WHERE child.inhparent = pg_catalog.to_regclass({table})
            ) THEN ';children' ELSE '' END,
            0
        )::text
        FROM pg_catalog.pg_attribute AS f
        WHERE f.attrelid = pg_catalog.to_regclass({table}) AND f.attnum > 0 AND NOT f.attisdropped
    )"""


_COMPARES = """EXISTS (
    SELECT FROM pg_opclass AS class
    JOIN pg_am AS method ON method.oid = class.opcmethod
    WHERE class.opcdefault AND method.amname IN ({methods}) AND class.opcintype = ANY (b.ways)
)"""
"""A type can be compared if it, or a binary-compatible type, has a default operator class for an index."""

_BASE = """base (oid, below, modifier) AS (
    SELECT oid, oid, -1 FROM pg_type
    UNION ALL
    SELECT base.oid, t.typbasetype, t.typtypmod
    FROM base JOIN pg_type t ON t.oid = base.below WHERE t.typtype = 'd'
)"""
"""The types below domains, with their length or precision."""

_NAME = """CASE WHEN {type}.typnamespace <> 'pg_catalog'::regnamespace AND CASE
               -- Not every server has these, and no user creates base types.
               WHEN {type}.typname IN ('citext', 'hstore', 'regcollation', 'regdatabase')
               THEN {type}.typtype <> 'b'
               ELSE EXISTS (
                   SELECT FROM pg_type AS known
                   WHERE known.typname = {type}.typname AND known.typnamespace = 'pg_catalog'::regnamespace
               ) END
           THEN (SELECT nspname FROM pg_namespace WHERE oid = {type}.typnamespace) || '.' || {type}.typname
           ELSE {type}.typname::text END"""
"""The name of the type ``{type}``: its ``typname``. If a user's type has the name of a type that the service
knows by its name, its schema comes first, as in ``billing.money``."""

_READS = """reads (oid, role) AS (
    {tables}
    UNION
    SELECT d.refobjid,
           CASE WHEN EXISTS (
                    SELECT FROM unnest(v.reloptions) AS item
                    -- As it was written: PostgreSQL also takes the first letters of a word, in capitals.
                    WHERE item ~* '^security_invoker=(t(r(ue?)?)?|y(es?)?|on|1)$'
                )
                THEN (SELECT oid FROM pg_roles WHERE rolname = current_user) ELSE v.relowner END
    FROM reads
    JOIN pg_class v ON v.oid = reads.oid AND v.relkind = 'v'
    JOIN pg_rewrite w ON w.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
)"""
"""The relations that tables read, and the role: a view reads as its owner, unless it is security_invoker."""

_HIDES_ROWS = """coalesce((
           SELECT bool_or(
               t.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
               AND (t.relforcerowsecurity OR NOT pg_has_role(r.oid, t.relowner, 'USAGE'))
           )
           FROM reads JOIN pg_class t ON t.oid = reads.oid JOIN pg_roles r ON r.oid = reads.role
       ), false)"""
"""Whether row-level security applies to one of the relations that are read."""

_BASE_TYPE = """JOIN LATERAL (
    SELECT t.*, base.modifier,
           array(
               SELECT t.oid
               UNION ALL
               SELECT casttarget FROM pg_cast
               WHERE castsource = t.oid AND castmethod = 'b' AND castcontext = 'i'
               UNION ALL
               SELECT oid FROM pg_type
               WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = CASE t.typtype
                   WHEN 'e' THEN 'anyenum' WHEN 'r' THEN 'anyrange'
                   WHEN 'm' THEN 'anymultirange' WHEN 'c' THEN 'record'
               END
           ) AS ways,
           -- A composite can be compared if each of its parts can; arrays, domains and composites count as
           -- not comparable.
           t.typtype <> 'c' OR NOT EXISTS (
               SELECT FROM pg_attribute part JOIN pg_type kind ON kind.oid = part.atttypid
               WHERE part.attrelid = t.typrelid AND part.attnum > 0 AND NOT part.attisdropped
               AND kind.typtype NOT IN ('e', 'r', 'm')
               AND NOT EXISTS (
                   SELECT FROM pg_opclass class JOIN pg_am method ON method.oid = class.opcmethod
                   WHERE class.opcdefault AND method.amname = 'btree' AND class.opcintype IN (
                       SELECT kind.oid
                       UNION ALL
                       SELECT casttarget FROM pg_cast
                       WHERE castsource = kind.oid AND castmethod = 'b' AND castcontext = 'i'
                   )
               )
           ) AS compares
    FROM base JOIN pg_type t ON t.oid = base.below
    WHERE base.oid = {oid} AND t.typtype <> 'd'
) b ON true"""
"""The type below any domains of the type with the OID ``{oid}``."""

_COMPARISONS = f"""{_COMPARES.format(methods="'btree', 'hash'")} AND b.compares AS equality,
       {_COMPARES.format(methods="'btree'")} AND b.compares AS ordering,
       array(
           SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid ORDER BY enumsortorder
       ) AS labels"""
"""What can be done with values of that type."""

_IS_KEY = """EXISTS (
           SELECT FROM pg_constraint AS k
           WHERE k.conrelid = {table} AND k.contype IN ('p', 'f') AND {number} = ANY (k.conkey)
       )"""
"""Whether the column with a number is part of a primary or foreign key of a table."""

COLUMNS = f"""
WITH RECURSIVE
{_BASE},
-- The relations that the table reads, and the role: a view reads as its owner, unless it is security_invoker.
{_READS.format(tables="SELECT to_regclass($1)::oid, (SELECT oid FROM pg_roles WHERE rolname = current_user)")}
SELECT n.nspname AS schema, c.relname AS table, c.relkind, a.attname AS name,
       -- From PostgreSQL 18 on a constraint can be NOT VALID: older rows can have NULL then.
       NOT a.attnotnull OR EXISTS (
           SELECT FROM pg_constraint AS filled WHERE filled.conrelid = c.oid AND filled.contype = 'n'
           AND NOT filled.convalidated AND filled.conkey = ARRAY[a.attnum]
       ) AS nullable,
       format_type(a.atttypid, a.atttypmod) AS type, {_NAME.format(type="b")} AS base, b.typtype AS category,
       home.nspname AS home, format('%I.%I', home.nspname, b.typname) AS cast,
       format_type(b.oid, CASE b.modifier WHEN -1 THEN a.atttypmod ELSE b.modifier END) AS declared,
       a.atttypid AS type_oid, a.attgenerated = 'v' AS is_virtual,
       coalesce(l.collisdeterministic, true) AS deterministic,
       {_COMPARISONS},
       coalesce(array_position(i.indkey::int2[], a.attnum), -1) AS key_position,
       a.attidentity <> '' OR {_IS_KEY.format(table="c.oid", number="a.attnum")} AS is_key,
       current_setting('server_version_num')::int AS version, getdatabaseencoding() AS encoding,
       c.relkind IN ('r', 'm') AND NOT c.relhassubclass AS is_alone,
       coalesce(method.amname = 'heap', false) AS is_heap,
       c.reltuples::float8 AS estimated_rows, c.relpages AS pages,
       -- ANALYZE leaves out the pages of TOAST, so its pieces of values count too: about four in a page.
       greatest(coalesce(toast.relpages, 0), pg_stat_get_live_tuples(c.reltoastrelid) / 4) AS toast_pages,
       current_setting('block_size')::int AS page_bytes,
       {fingerprint_expression("format('%I.%I', n.nspname, c.relname)")} AS fingerprint,
       {_HIDES_ROWS} AS filtered
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
{_BASE_TYPE.format(oid="a.atttypid")}
JOIN pg_namespace home ON home.oid = b.typnamespace
LEFT JOIN pg_am method ON method.oid = c.relam
LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
ORDER BY a.attnum
"""
"""One row for each column of the table named ``$1``; no row if the table does not exist."""


@dataclass(frozen=True, slots=True)
class TypedColumn:
    """A column and its type.

    Attributes:
        type: the declared type as PostgreSQL writes it.
        base, category, home, cast, declared: the type below any domains: its name (:data:`_NAME`),
            ``typtype``, schema, name with schema, and text with its length or precision.
        type_oid: OID of the declared type.
        deterministic: whether the collation takes only identical texts for equal.
        equality, ordering: whether values of the type can be compared.
        labels: values of an enum.
        is_key: whether it is part of a primary or foreign key, or an identity column.
        version: ``server_version_num``.
        encoding: the encoding of the database.
    """

    name: str
    nullable: bool
    type: str
    base: str
    category: bytes
    home: str
    cast: str
    declared: str
    type_oid: int
    deterministic: bool
    equality: bool
    ordering: bool
    labels: Sequence[str]
    is_key: bool
    version: int
    encoding: str


@dataclass(frozen=True, slots=True)
class ColumnRow(TypedColumn):
    """A row of :data:`COLUMNS`: a column, its type, and facts about its table.

    Attributes:
        schema, table, relkind, fingerprint: the table.
        filtered: whether row-level security applies to the service's role.
        is_alone: whether it is a table or a materialized view without partitions and children.
        is_heap: whether its rows are in PostgreSQL's own storage.
        estimated_rows, pages, toast_pages, page_bytes: its size when it was last analysed or vacuumed; no
            pages if it never was.
        is_virtual: whether the column is calculated when it is read.
        key_position: position in the primary key, -1 for other columns.
    """

    schema: str
    table: str
    relkind: bytes
    is_virtual: bool
    key_position: int
    fingerprint: str
    filtered: bool
    is_alone: bool
    is_heap: bool
    estimated_rows: float
    pages: int
    toast_pages: int
    page_bytes: int


RESULT_COLUMNS = f"""
WITH RECURSIVE
{_BASE}
SELECT d.name, true AS nullable, format_type(d.type_oid, d.modifier) AS type,
       {_NAME.format(type="b")} AS base, b.typtype AS category,
       home.nspname AS home, format('%I.%I', home.nspname, b.typname) AS cast,
       format_type(b.oid, CASE b.modifier WHEN -1 THEN d.modifier ELSE b.modifier END) AS declared,
       d.type_oid,
       -- The collation of an expression is not known.
       own.typcollation = 0 OR coalesce(
           l.collisdeterministic, NOT EXISTS (SELECT FROM pg_collation WHERE NOT collisdeterministic)
       ) AS deterministic,
       {_COMPARISONS},
       coalesce(a.attidentity <> '', false)
           OR {_IS_KEY.format(table="d.origin", number="d.attribute")} AS is_key,
       current_setting('server_version_num')::int AS version, getdatabaseencoding() AS encoding
FROM unnest($1::text[], $2::oid[], $3::int[], $4::oid[], $5::int2[])
    WITH ORDINALITY AS d (name, type_oid, modifier, origin, attribute, number)
JOIN pg_type own ON own.oid = d.type_oid
{_BASE_TYPE.format(oid="d.type_oid")}
JOIN pg_namespace home ON home.oid = b.typnamespace
LEFT JOIN pg_attribute a ON a.attrelid = d.origin AND a.attnum = d.attribute
LEFT JOIN pg_collation l ON l.oid = a.attcollation
ORDER BY d.number
"""
"""One row of :class:`TypedColumn` for each column of a query's result, which is given by its names, types,
modifiers, and the tables and numbers of the columns that it shows unchanged."""

_LOCKED = """SELECT relation, (SELECT oid FROM pg_roles WHERE rolname = current_user) FROM pg_locks
    WHERE locktype = 'relation' AND pid = pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

LOCKED_ROWS_HIDDEN = f"""
WITH RECURSIVE
{_READS.format(tables=_LOCKED)}
SELECT {_HIDES_ROWS} AS filtered
"""
"""Whether row-level security applies to a relation that the transaction has locked. A query that is prepared
locks all relations that it reads. For one that it reads only through a view the answer can be wrongly yes."""


_TYPES = """
    WITH RECURSIVE used (oid) AS (
        {start}
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
    SELECT t.oid, {name} AS name, t.typtype AS category, t.typbasetype AS base,
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

TYPES = _TYPES.format(
    name=_NAME.format(type="t"),
    start="""SELECT atttypid FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped""",
)
"""All types of a table's columns with the types of their parts. PostgreSQL 14 added ``rngmultitypid``."""

TYPES_BY_OID = _TYPES.format(name=_NAME.format(type="t"), start="SELECT pg_catalog.unnest($1::oid[])")
"""The types with some OIDs, with the types of their parts."""


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A row of :data:`TYPES`. Other types are given by their OIDs: 0 or ``None`` if there is none.

    Attributes:
        name, category: its name (:data:`_NAME`) and ``typtype``.
        base: the base type of a domain.
        element: type of an array's elements.
        bounds: type of a range's bounds.
        field_names, field_types: fields of a composite type.
        has_json_cast: whether an extension defines a cast to ``json``.
    """

    oid: int
    name: str
    category: bytes
    base: int
    element: int
    bounds: int | None
    field_names: Sequence[str]
    field_types: Sequence[int]
    has_json_cast: bool


def assemble_type(oid: int, rows: Mapping[int, TypeRow]) -> DataType:
    """Return the type ``oid`` with all its parts. Each domain is replaced by its base type.

    The recursion ends, because no type contains itself. A type that is not in ``rows`` is rendered as text.
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
        fields=tuple(
            (name, assemble_type(part, rows))
            for name, part in zip(row.field_names, row.field_types, strict=True)
        ),
        bounds=assemble_type(row.bounds, rows) if row.bounds else None,
        is_multirange=row.category == b"m",
        # PostgreSQL's JSON functions write a composite type without fields as {}, its text is ().
        has_json_cast=row.has_json_cast or (row.category == b"c" and not row.field_names),
    )
