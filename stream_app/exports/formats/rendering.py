"""The SQL that writes the values of each type, at every depth. It is the same in all formats. Pure.

``docs/types.md`` has the rules for all types. PostgreSQL's JSON functions and casts are used for all types
whose result is right, because they are fast. Only the other types, and types that contain them, are written
part by part.

Expressions are plain SQL. The SQL of a value must be cheap, because it is evaluated more than once.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Numeric, Text, and_, case, cast, func, literal_column

from stream_app.exports.columns import Column, DataType, Kind, quote_name
from stream_app.exports.formats.base import ROWS, cell
from stream_app.exports.formats.zoned import zoned_text_sql

_OBJECTS = {
    "regclass": "pg_class",
    "regcollation": "pg_collation",
    "regconfig": "pg_ts_config",
    "regdatabase": "pg_database",
    "regdictionary": "pg_ts_dict",
    "regnamespace": "pg_namespace",
    "regoper": "pg_operator",
    "regoperator": "pg_operator",
    "regproc": "pg_proc",
    "regprocedure": "pg_proc",
    "regrole": "pg_authid",
    "regtype": "pg_type",
}
"""Catalogs by the types that refer to their rows. PostgreSQL shows names that depend on ``search_path``."""


def text_sql(value: str, data_type: DataType, depth: int = 1) -> str:
    """Return SQL for the value as ``text``. NULL stays NULL."""
    if data_type.bounds is not None:
        return (
            _multirange(value, data_type, depth)
            if data_type.is_multirange
            else _range(value, data_type.bounds, depth)
        )
    if data_type.element is not None or data_type.fields:
        return f"to_json({json_sql(value, data_type, depth)})::text"
    if data_type.zone is not None:
        return zoned_text_sql(value, data_type.zone)
    render = _TEXTS.get(data_type.name) or (_name if data_type.name in _OBJECTS else None)
    return render(value, data_type) if render else f"({value})::text"


def json_sql(value: str, data_type: DataType, depth: int = 1) -> str:
    """Return SQL for a value that ``to_json`` writes as the right JSON."""
    if is_own_json(data_type):
        return value
    if data_type.element is not None:
        element = data_type.element
        return _array(value, lambda item: f"to_json({json_sql(item, element, depth + 1)})", depth)
    if data_type.fields:
        fields = ", ".join(
            f"{json_sql(f'({value}).{quote_name(name)}', part, depth)} AS {quote_name(name)}"
            for name, part in data_type.fields
        )
        return (
            f"CASE WHEN {value} IS DISTINCT FROM NULL"  # IS NOT NULL would test each field
            f" THEN (SELECT row_to_json(f{depth}) FROM (SELECT {fields}) AS f{depth}) END"
        )
    render = _JSON.get(data_type.name)
    return render(value, data_type) if render else text_sql(value, data_type, depth)


def array_texts_sql(value: str, element: DataType) -> str:
    """Return SQL for an array with the texts of its elements, as ``json`` or as an array of texts."""
    if is_own_text(element, within_array=True):
        return f"({value})::text[]"
    return _array(value, lambda item: f"to_json({text_sql(item, element, 2)})", 1)


def is_own_json(data_type: DataType) -> bool:
    """Return whether PostgreSQL's JSON functions write values of the type as the rules demand."""
    if data_type.element is not None:
        return is_own_json(data_type.element)
    if data_type.fields:
        return all(is_own_json(part) for _, part in data_type.fields)
    if data_type.bounds is not None:
        return is_own_text(data_type)
    if data_type.has_json_cast:
        return data_type.name in _JSON_BY_CAST
    if data_type.zone is not None:
        return False
    return data_type.name not in {*_JSON, *_OBJECTS, "bytea", "bpchar"}


def is_own_text(data_type: DataType, *, within_array: bool = False) -> bool:
    """Return whether PostgreSQL's text of a value, or of an array's element, is as the rules demand."""
    if data_type.bounds is not None:
        return is_own_text(data_type.bounds) and data_type.bounds.name != "bool"
    if not data_type.is_scalar:
        return False
    # A cast of an array casts each element, which removes the padding.
    return (
        data_type.name not in _TEXTS or (within_array and data_type.name == "bpchar")
    ) and data_type.name not in _OBJECTS


def is_json_text(data_type: DataType) -> bool:
    """Return whether the text of a value is JSON."""
    return (
        data_type.element is not None
        or bool(data_type.fields)
        or data_type.kind is Kind.JSON
        or data_type.name in _JSON_BY_CAST
    )


_JSON_BY_CAST = {"hstore"}
"""Types of extensions that are written as JSON in all formats, without loss."""

_Render = Callable[[str, DataType], str]

_TEXTS: dict[str, _Render] = {
    "bpchar": lambda value, _: f"({value})::text",  # the cast removes the padding
    "bytea": lambda value, _: f"translate(encode({value}, 'base64'), E'\\n', '')",
    "hstore": lambda value, _: f"({value})::json::text",
    "inet": lambda value, _: f"abbrev({value})",  # a cast to text would append /32
    "money": lambda value, _: f"({value})::numeric::text",
    "timestamp": lambda value, _: f"btrim(to_json({value})::text, '\"')",
    "timestamptz": lambda value, _: f"btrim(to_json({value})::text, '\"')",
}
"""Types whose text in PostgreSQL differs from the rules."""

_JSON: dict[str, _Render] = {
    "money": lambda value, _: f"({value})::numeric",
    "oid": lambda value, _: f"({value})::bigint",
}
"""Types that are numbers in JSON, although PostgreSQL quotes them."""


def _name(value: str, data_type: DataType) -> str:
    """Return SQL for the name of an object as PostgreSQL writes it with an empty ``search_path``.

    An object that does not exist any more is written as its number.
    """
    identity = (
        f"(pg_identify_object('pg_catalog.{_OBJECTS[data_type.name]}'::regclass, ({value})::oid, 0)).identity"
    )
    if data_type.name in ("regoper", "regproc"):  # names of these types have no arguments
        identity = f"regexp_replace({identity}, '\\([^()]*\\)$', '')"
    return (
        f"CASE ({value})::oid WHEN 0 THEN '-' ELSE coalesce("
        f"regexp_replace({identity}, '(^|[(,])pg_catalog\\.', '\\1', 'g'), ({value})::oid::text) END"
    )


def _range(value: str, bounds: DataType, depth: int) -> str:
    if is_own_text(DataType("", bounds=bounds)):
        return f"({value})::text"
    lower, upper = (
        f"CASE WHEN {side}_inf({value}) THEN '' ELSE {_bound(f'{side}({value})', bounds, depth)} END"
        for side in ("lower", "upper")
    )
    return (
        f"CASE WHEN isempty({value}) THEN 'empty' ELSE"
        f" CASE WHEN lower_inc({value}) THEN '[' ELSE '(' END || {lower} || ',' || {upper} ||"
        f" CASE WHEN upper_inc({value}) THEN ']' ELSE ')' END END"
    )


def _bound(value: str, data_type: DataType, depth: int) -> str:
    """Return SQL for the text of a bound, quoted as PostgreSQL quotes it."""
    escaped = f"replace(replace(b{depth}.b, '\\', '\\\\'), '\"', '\"\"')"
    return (
        f"(SELECT CASE WHEN b{depth}.b = '' OR b{depth}.b ~ '[][(),\"\\\\[:space:]]'"
        f" THEN '\"' || {escaped} || '\"' ELSE b{depth}.b END"
        f" FROM (SELECT {text_sql(value, data_type, depth + 1)} AS b OFFSET 0) AS b{depth})"
    )


def _multirange(value: str, data_type: DataType, depth: int) -> str:
    if is_own_text(data_type) or data_type.bounds is None:
        return f"({value})::text"
    one = _range(f"i{depth}.e", data_type.bounds, depth + 1)
    return (
        f"CASE WHEN {value} IS NOT NULL THEN '{{' ||"
        f" coalesce((SELECT string_agg({one}, ',' ORDER BY i{depth}.n)"
        f" FROM unnest({value}) WITH ORDINALITY AS i{depth} (e, n)), '') || '}}' END"
    )


def _array(value: str, item: Callable[[str], str], depth: int) -> str:
    """Return SQL for a JSON array, nested by the array's dimensions. ``item`` returns SQL for an element.

    The elements are numbered. A bracket of dimension d opens before the first element of each slice below it
    and closes after the last one. ``s`` has the number of elements of such slices, and is NULL for dimensions
    that the array does not have. It is a subquery, so that the array is evaluated only once.
    """
    i, s = f"i{depth}", f"s{depth}"
    slices = ", ".join(
        f"CASE WHEN array_ndims({value}) > {dimension} THEN cardinality({value}) / ("
        + " * ".join(f"array_length({value}, {outer})" for outer in range(1, dimension + 1))
        + f") END AS s{dimension}"
        for dimension in range(1, 6)
    )
    opens = " || ".join(
        f"CASE WHEN ({i}.n - 1) % {s}.s{dimension} = 0 THEN '[' ELSE '' END" for dimension in range(1, 6)
    )
    closes = " || ".join(
        f"CASE WHEN {i}.n % {s}.s{dimension} = 0 THEN ']' ELSE '' END" for dimension in range(1, 6)
    )
    return (
        f"CASE WHEN {value} IS NOT NULL THEN coalesce((SELECT '[' || string_agg("
        f"{opens} || coalesce({item(f'{i}.e')}::text, 'null') || {closes}, ',' ORDER BY {i}.n) || ']'"
        f" FROM (SELECT unnest({value}) AS e, generate_series(1, cardinality({value})) AS n) AS {i}"
        f" CROSS JOIN (SELECT {slices} OFFSET 0) AS {s}), '[]')::json END"
    )


COMMON_ERA = ("0001-01-01", "10000-01-01")
"""From the first day to the second (exclusive), the text of a time is only date, space and time of day."""


def iso_time(value: ColumnElement[Any], *, zone: bool) -> ColumnElement[Any]:
    """Return SQL for a time such as ``2026-01-31T13:30:00+00:00``, as PostgreSQL's JSON functions write it.

    These functions look up the type for every value. So they are used only for infinity and distant years.
    """
    first, end = (_moment(day, zone=zone) for day in COMMON_ERA)
    plain = func.replace(cast(value, Text), " ", "T")
    return case(
        (and_(value >= first, value < end), plain.concat(":00") if zone else plain),
        else_=func.btrim(cast(func.to_json(value), Text), '"'),
    )


def _moment(day: str, *, zone: bool) -> ColumnElement[Any]:
    return literal_column(f"'{day} 00:00:00{'+00' if zone else ''}'")


def base64(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return SQL for base64 (RFC 4648) without line breaks."""
    return func.translate(func.encode(value, "base64"), "\n", "")


def column_sql(item: Column) -> str:
    """Return plain SQL for the column ``item``, with the table's name, so that the name is unambiguous."""
    return f"{ROWS.name}.{quote_name(item.name)}"


def numeric_value(item: Column) -> ColumnElement[Any]:
    """Return the value of a numeric column; for ``money`` without the currency."""
    return cast(cell(item), Numeric) if item.base == "money" else cell(item)


def as_text(item: Column) -> ColumnElement[Any]:
    """Return the value as text for csv, pdf and the text cells of a workbook."""
    value = cell(item)
    match item.kind:
        case Kind.TIMESTAMPTZ if item.zone is not None:
            return literal_column(zoned_text_sql(column_sql(item), item.zone), Text)
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return iso_time(value, zone=item.kind is Kind.TIMESTAMPTZ)
        case Kind.BYTES:
            return base64(value)
        case Kind.ARRAY if is_own_json(item.data_type):
            return cast(func.to_json(value), Text)
        case Kind.NUMERIC:
            return numeric_value(item)
        case Kind.INTEGER | Kind.FLOAT | Kind.DATE | Kind.UUID | Kind.JSON:
            return value
        case Kind.TEXT if item.base == "text":
            return value
    if is_own_text(item.data_type):
        return cast(value, Text)
    return literal_column(text_sql(column_sql(item), item.data_type), Text)
