"""The query for everything that has to be known about a dataset's table. Works from PostgreSQL 12 on."""

_ATTRIBUTES = """pg_catalog.string_agg(
    pg_catalog.concat_ws(',', f.attnum, f.attname, f.atttypid, f.atttypmod, f.attcollation, f.attnotnull),
    ';' ORDER BY f.attnum
)"""


def fingerprint_expression(table: str) -> str:
    """An expression for a number that is another one after each change of the columns.

    ``table`` is the SQL of its full name as a text.
    """
    return f"""(
        SELECT pg_catalog.hashtextextended({_ATTRIBUTES}, 0)::text
        FROM pg_catalog.pg_attribute AS f
        WHERE f.attrelid = pg_catalog.to_regclass({table}) AND f.attnum > 0 AND NOT f.attisdropped
    )"""


_COMPARES = """EXISTS (
    SELECT FROM pg_opclass AS class
    JOIN pg_am AS method ON method.oid = class.opcmethod
    WHERE class.opcdefault AND method.amname IN ({methods}) AND class.opcintype = ANY (b.ways)
)"""
"""A type compares if it, or one that it is stored like, has a default class of operators for an index."""

COLUMNS = f"""
WITH RECURSIVE
base (oid, below, modifier) AS (
    SELECT oid, oid, -1 FROM pg_type
    UNION ALL
    SELECT base.oid, t.typbasetype, t.typtypmod
    FROM base JOIN pg_type t ON t.oid = base.below WHERE t.typtype = 'd'
),
-- What the table reads from, and as whom: a view reads with its owner's rights unless it says otherwise.
reads (oid, role) AS (
    SELECT to_regclass($1)::oid, (SELECT oid FROM pg_roles WHERE rolname = current_user)
    UNION
    SELECT d.refobjid,
           CASE WHEN array_to_string(v.reloptions, ' ') ~ 'security_invoker=(true|on|yes|1)'
                THEN (SELECT oid FROM pg_roles WHERE rolname = current_user) ELSE v.relowner END
    FROM reads
    JOIN pg_class v ON v.oid = reads.oid AND v.relkind = 'v'
    JOIN pg_rewrite w ON w.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
)
SELECT n.nspname AS schema, c.relname AS table, c.relkind, a.attname AS name, NOT a.attnotnull AS nullable,
       format_type(a.atttypid, a.atttypmod) AS type, b.typname AS base, b.typtype AS category,
       home.nspname AS home, format('%I.%I', home.nspname, b.typname) AS cast,
       format_type(b.oid, CASE b.modifier WHEN -1 THEN a.atttypmod ELSE b.modifier END) AS declared,
       a.atttypid AS type_oid, a.attgenerated = 'v' AS is_virtual,
       coalesce(l.collisdeterministic, true) AS deterministic,
       {_COMPARES.format(methods="'btree', 'hash'")} AND b.compares AS equality,
       {_COMPARES.format(methods="'btree'")} AND b.compares AS ordering,
       array(
           SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid ORDER BY enumsortorder
       ) AS labels,
       coalesce(array_position(i.indkey::int2[], a.attnum), -1) AS key_position,
       current_setting('server_version_num')::int AS version,
       {fingerprint_expression("format('%I.%I', n.nspname, c.relname)")} AS fingerprint,
       coalesce((
           SELECT bool_or(
               t.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
               AND (t.relforcerowsecurity OR NOT pg_has_role(r.oid, t.relowner, 'USAGE'))
           )
           FROM reads JOIN pg_class t ON t.oid = reads.oid JOIN pg_roles r ON r.oid = reads.role
       ), false) AS filtered
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN LATERAL (
    SELECT t.*, base.modifier,
           array(
               SELECT t.oid
               UNION ALL
               SELECT casttarget FROM pg_cast
               WHERE castsource = t.oid AND castmethod = 'b' AND castcontext = 'i'
               UNION ALL
               SELECT oid FROM pg_type WHERE typname = CASE t.typtype
                   WHEN 'e' THEN 'anyenum' WHEN 'r' THEN 'anyrange'
                   WHEN 'm' THEN 'anymultirange' WHEN 'c' THEN 'record'
               END
           ) AS ways,
           -- A composite compares if each of its parts does; arrays, domains and composites count as none.
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
    WHERE base.oid = a.atttypid AND t.typtype <> 'd'
) b ON true
JOIN pg_namespace home ON home.oid = b.typnamespace
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
ORDER BY a.attnum
"""
"""One row for each column of the table named ``$1``; no row if there is none."""
