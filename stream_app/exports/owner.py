"""Which rows are a user's own: those whose owner, as text, is the user's id. Pure."""

import re
from typing import Any

from sqlalchemy import ColumnElement, String, Text, cast, false, literal

from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters import Spelled

_CANONICAL: dict[Kind, str] = {
    Kind.BOOLEAN: r"true|false",
    Kind.INTEGER: r"0|-?[1-9][0-9]{0,18}",
    Kind.UUID: r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
"""How PostgreSQL itself writes values of these kinds: no other text is one of theirs."""

_LIMITS = {"int2": 2**15, "int4": 2**31, "int8": 2**63, "oid": 2**32}


def owned(column: Column, target: ColumnElement[Any], user_id: str) -> list[ColumnElement[bool]]:
    """The conditions under which a row is the user's: ``target::text = user_id``, to the byte.

    Where the type's own ``=`` says the same for this id it is used alone, so that an index serves it. Where
    it says more (a ``citext``, a number with another scale), it is used to search and the text decides.
    Elsewhere the text alone does. No id is an error: one that the type cannot hold owns nothing.
    """
    if (canonical := _CANONICAL.get(column.kind)) is not None:
        if not re.fullmatch(canonical, user_id, re.ASCII) or not _fits(column, user_id):
            return [false()]
        return [_same(column, target, user_id)]
    if column.kind is Kind.ENUM:
        return [_same(column, target, user_id)] if user_id in column.labels else [false()]
    if column.kind is Kind.TEXT and column.base in ("text", "varchar") and column.deterministic:
        return [_same(column, target, user_id)]
    by_text = cast(target, Text).collate("C") == literal(user_id, String)
    searchable = column.kind is Kind.TEXT or (
        column.kind is Kind.NUMERIC and re.fullmatch(r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?", user_id, re.ASCII)
    )
    return [_same(column, target, user_id), by_text] if searchable else [by_text]


def _same(column: Column, target: ColumnElement[Any], user_id: str) -> ColumnElement[bool]:
    same: ColumnElement[bool] = target == cast(literal(user_id, String), Spelled(column.cast or column.type))
    return same


def _fits(column: Column, user_id: str) -> bool:
    if column.kind is not Kind.INTEGER:
        return True
    limit = _LIMITS[column.base]
    lowest = 0 if column.base == "oid" else -limit
    return lowest <= int(user_id) < limit
