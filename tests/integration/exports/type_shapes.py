"""Every built-in type, and types derived from it in two levels: SQL names and generated values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import strategies as st

Literal = str
"""The text of a value that PostgreSQL reads, without quotes."""


@dataclass(frozen=True)
class Shape:
    """A type: a scalar by its name, an array, a composite type, a range or multirange, below any domains."""

    sql: str
    name: str = ""
    element: "Shape | None" = None
    fields: tuple[tuple[str, "Shape"], ...] = ()
    bounds: "Shape | None" = None
    is_multirange: bool = False
    ddl: tuple[str, ...] = field(default=(), compare=False)

    def __hash__(self) -> int:
        """Return the hash of the name, without those of all parts."""
        return hash(self.sql)

    @property
    def separator(self) -> str:
        """The delimiter of the elements of an array."""
        return ";" if self.element and self.element.name == "box" else ","


def _of(*literals: Literal) -> st.SearchStrategy[Literal]:
    return st.sampled_from(literals)


_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
) | st.sampled_from(
    ["", "NULL", "null", 'a"b', "c,d", "{e}", "(f)", "\\", "'", " g ", "h\ni", "\r\t", "=1", "\x01\x02"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["x", 'q"', "l\n", "\\", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=5,
)


def _json_text(value: object) -> Literal:
    return json.dumps(value, indent=1).replace("\n", "\r\n\t")


_BYTES = st.binary(max_size=60).map(lambda data: "\\x" + data.hex())
_BITS = st.text("01", max_size=9)
_YEARS = (
    "0044-03-15 BC",
    "0001-01-01",
    "1582-10-15",
    "1970-01-01",
    "2026-01-31",
    "9999-12-31",
    "20000-02-29",
)
_CLOCKS = ("00:00:00", "13:30:00.5", "23:59:59.9996", "23:59:59.999999", "02:03:04.000001")
_TIMES = st.sampled_from(
    [f"{day.removesuffix(' BC')} {clock}{' BC' * day.endswith('BC')}" for day in _YEARS for clock in _CLOCKS]
) | _of("infinity", "-infinity")
_NONE: st.SearchStrategy[Literal] | None = None

SCALARS: dict[str, st.SearchStrategy[Literal] | None] = {
    "aclitem": _of("=r/postgres", "postgres=arwd/postgres"),
    "bit": _of("0", "1"),
    "bool": _of("true", "false"),
    "box": _of("(1.5,2),(0,0)", "(1e300,2),(-0.1,0)"),
    "bpchar": _TEXT,
    "bytea": _BYTES,
    "char": _of("a", "", "'", "\\", ","),
    "cid": _of("0", "4294967295"),
    "cidr": _of("10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32"),
    "circle": _of("<(0.1,2),3>", "<(1,2),1e-5>"),
    "date": st.sampled_from(_YEARS) | _of("infinity", "-infinity"),
    "float4": _of("0", "-0", "0.1", "1e30", "NaN", "Infinity", "-Infinity", "3.4028235e38"),
    "float8": st.floats().map(repr) | _of("0.1", "-0", "5e-324"),
    "gtsvector": _NONE,
    "inet": _of("10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::1/64"),
    "int2": st.integers(-(2**15), 2**15 - 1).map(str),
    "int2vector": st.lists(st.integers(-9, 9).map(str), max_size=3).map(" ".join),
    "int4": st.integers(-(2**31), 2**31 - 1).map(str),
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "interval": _of(
        "0", "1 day 2 hours", "-1 mon 3 days -04:05:06.789", "178000000 years", "1.5 s", "infinity"
    ),
    "json": _JSON.map(_json_text),
    "jsonb": _JSON.map(_json_text),
    "jsonpath": _of("$.a", '$."b c"[*] ? (@ > 1)'),
    "line": _of("{1,2,3}", "{0.1,-1,0}"),
    "lseg": _of("[(1,2),(3,4)]"),
    "macaddr": _of("08:00:2b:01:02:03"),
    "macaddr8": _of("08:00:2b:01:02:03:04:05"),
    "money": _of("-5.25", "0", "1234567.89", "-92233720368547758.08"),
    "name": _TEXT.map(lambda text: text[:12]),
    "numeric": st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**20), max_value=10**20
    ).map(str)
    | _of("NaN", "Infinity", "1e-20", "1" + "0" * 40, "100"),
    "oid": _of("0", "26", "4294967295"),
    "oidvector": _of("", "26", "0 4294967295"),
    "path": _of("[(1,2),(3,4)]", "((0.1,2),(3,4))"),
    "pg_brin_bloom_summary": _NONE,
    "pg_brin_minmax_multi_summary": _NONE,
    "pg_dependencies": _NONE,
    "pg_lsn": _of("0/0", "16/B374D848"),
    "pg_mcv_list": _NONE,
    "pg_ndistinct": _NONE,
    "pg_node_tree": _NONE,
    "pg_snapshot": _of("10:20:10,14,15"),
    "point": _of("(0.1,2)", "(1e300,-0)"),
    "polygon": _of("((0,0),(1,1),(2,0))"),
    "refcursor": _TEXT,
    "regclass": _of("pg_class", "information_schema.tables"),
    "regcollation": _of('"C"', '"default"'),
    "regconfig": _of("simple", "english"),
    "regdatabase": _of("postgres", "template1"),
    "regdictionary": _of("simple"),
    "regnamespace": _of("pg_catalog", "public"),
    "regoper": _of("||/", "|/"),
    "regoperator": _of("+(integer,integer)", "-(none,integer)"),
    "regproc": _of("now", "pg_backend_pid"),
    "regprocedure": _of("abs(integer)", "now()"),
    "regrole": _of("postgres"),
    "regtype": _of("-", "integer", "timestamp with time zone", "pg_class", "text[]"),
    "text": _TEXT,
    "tid": _of("(0,1)", "(4294967295,65535)"),
    "time": st.sampled_from([*_CLOCKS, "24:00:00"]),
    "timestamp": _TIMES,
    "timestamptz": _TIMES.map(
        lambda text: (
            text if "inf" in text else text.replace(" BC", "+02 BC") if "BC" in text else f"{text}+02"
        )
    ),
    "timetz": st.sampled_from(_CLOCKS).map(lambda text: f"{text}+05:30"),
    "tsquery": _of("'a' & !'b'", "'x' <-> 'y'"),
    "tsvector": _of("", "'a':1A 'b c':2,3"),
    "txid_snapshot": _of("10:20:10,14,15"),
    "uuid": st.uuids().map(str),
    "varbit": _BITS,
    "varchar": _TEXT,
    "xid": _of("0", "4294967295"),
    "xid8": _of("0", "18446744073709551615"),
    "xml": _NONE,  # the server of the wheel is built without libxml
}
"""Values by ``pg_type.typname``. ``None``: the type has no input function for values."""

VECTORS = {"int2vector": "int2", "oidvector": "oid"}
RANGES = {
    "int4": "int4", "int8": "int8", "numeric": "num", "date": "date", "timestamp": "ts", "timestamptz": "tstz"
}  # fmt: skip


def scalar(name: str) -> Shape:
    """Return the shape of a built-in type. The vector types are arrays."""
    sql = f'pg_catalog."{name}"'
    return (
        Shape(sql, name, element=Shape(f'pg_catalog."{VECTORS[name]}"', VECTORS[name]))
        if name in VECTORS
        else Shape(sql, name)
    )


def shapes_of(name: str, *, orderable: bool) -> Iterator[Shape]:
    """Return the type and the types derived from it, in an order in which they can be created."""
    base = scalar(name)
    yield base
    if SCALARS[name] is None and name != "xml":  # they have no array types either
        return
    array = Shape(f"{base.sql}[]", element=base)
    yield array

    def domain(shape: Shape, label: str) -> Shape:
        new = f'"{label} {name}"'
        ddl = (*shape.ddl, f"CREATE DOMAIN {new} AS {shape.sql}")
        return Shape(
            new, shape.name, shape.element, shape.fields, shape.bounds, shape.is_multirange, ddl[-1:]
        )

    inner = domain(base, "domain")
    outer = domain(inner, "domain of domain")
    yield inner
    yield outer
    yield Shape(f"{outer.sql}[]", element=outer)
    yield domain(array, "domain of array")
    fields = [("a", base), ('b "c"', array), ("select", outer)]
    record = f'"record {name}"'
    columns = ", ".join(f"{_quoted(label)} {shape.sql}" for label, shape in fields)
    composite = Shape(record, fields=tuple(fields), ddl=(f"CREATE TYPE {record} AS ({columns})",))
    yield composite
    composites = Shape(f"{record}[]", element=composite)
    yield composites
    deeper = [("one", composite), ("many", composites)]
    if orderable:
        for label, subtype in (("range", base), ("range of domain", outer)):
            new, several = f'"{label} {name}"', f'"multi{label} {name}"'
            create = f"CREATE TYPE {new} AS RANGE (subtype = {subtype.sql}, multirange_type_name = {several})"
            ranged = Shape(new, bounds=subtype, ddl=(create,))
            multi = Shape(several, bounds=subtype, is_multirange=True)
            yield ranged
            yield multi
            yield Shape(f"{new}[]", element=ranged)
            deeper += [(label, ranged), (f"multi{label}", multi)]
            if label == "range":
                yield domain(ranged, "domain of range")
    if name in RANGES:
        yield Shape(f"pg_catalog.{RANGES[name]}range", bounds=base)
        yield Shape(f"pg_catalog.{RANGES[name]}multirange", bounds=base, is_multirange=True)
    outermost = f'"nested {name}"'
    columns = ", ".join(f"{_quoted(label)} {shape.sql}" for label, shape in deeper)
    nested = Shape(outermost, fields=tuple(deeper), ddl=(f"CREATE TYPE {outermost} AS ({columns})",))
    yield nested
    yield domain(nested, "domain of nested")


HIGHEST = {"int4": 2**31 - 2, "int8": 2**63 - 2}
"""Largest bounds of ranges. A range is written with the value after its last one, which must exist."""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def constant(value: Literal, sql: str) -> str:
    """Return an SQL expression for a literal of a type."""
    text = value.replace("'", "''").replace("\\", "\\\\")
    return f"(E'{text}'::text)::{sql}"  # a view cannot hold constants of some types


@dataclass(frozen=True)
class Values:
    """Makes values of any shape from drawn scalars. ``random`` chooses their number and places."""

    scalars: Mapping[str, Sequence[Literal]]
    random: Random

    @property
    def are_simplest(self) -> bool:
        """Whether the drawn values are the simplest ones."""
        return all(len(set(literals)) <= 1 for literals in self.scalars.values())

    def expression(self, shape: Shape) -> str:
        """Return an SQL expression for a value of the shape, sometimes NULL."""
        if self.random.random() < 0.1:
            return f"NULL::{shape.sql}"
        if shape.name:
            literals = self.scalars[shape.name]
            return constant(self.random.choice(literals), shape.sql) if literals else f"NULL::{shape.sql}"
        if shape.element is not None:
            return self._array(shape, shape.element)
        if shape.fields:
            values = ", ".join(self.expression(part) for _, part in shape.fields)
            return f"ROW({values})::{shape.sql}"
        assert shape.bounds is not None
        constructor = shape.sql.replace("multi", "", 1) if shape.is_multirange else shape.sql
        constructor = constructor.replace("domain of range ", "range ")
        if not shape.is_multirange:
            return f"({self._range(constructor, shape.bounds)})::{shape.sql}"
        ranges = [self._range(constructor, shape.bounds) for _ in range(self.random.randrange(3))]
        return f"{shape.sql}({', '.join(ranges)})"

    def _array(self, shape: Shape, element: Shape) -> str:
        lengths = self.random.choice([(0,), (1,), (2,), (3,), (1, 1), (2, 2), (2, 1, 2), (1, 2, 1, 1, 1, 2)])
        if lengths == (0,):
            return f"'{{}}'::{shape.sql}"

        def level(rest: tuple[int, ...]) -> str:
            if not rest:
                return self.expression(element)
            return "ARRAY[" + ", ".join(level(rest[1:]) for _ in range(rest[0])) + "]"

        return f"({level(lengths)})::{shape.sql}"

    def _bound(self, bounds: Shape) -> str:
        value = self.expression(bounds)
        highest = HIGHEST.get(bounds.name)
        return value if highest is None else f"least({value}, {highest})::{bounds.sql}"

    def _range(self, constructor: str, bounds: Shape) -> str:
        null = f"NULL::{bounds.sql}"
        first, second = (self._bound(bounds) for _ in range(2))
        kind = self.random.choice(["[]", "[)", "(]", "()"])
        lower, upper = self.random.choice(
            [
                (f"least({first}, {second})", f"greatest({first}, {second})"),
                (first, null),
                (null, first),
                (null, null),
            ]
        )
        some = f"{constructor}({lower}, {upper}, '{kind}')"
        return self.random.choice([some] * 5 + [f"'empty'::{constructor}"])


@st.composite
def values(draw: st.DrawFn, each: int = 3) -> Values:
    """Draw ``each`` scalars of each type."""
    scalars = {
        name: [draw(strategy) for _ in range(each)] if strategy is not None else []
        for name, strategy in SCALARS.items()
    }
    return Values(scalars, draw(st.integers(0, 2**32).map(Random)))
