"""Masks: SQL that replaces the values of a column for callers who must not see them. Pure.

A mask is the name of one of :data:`MASKS`, or an SQL expression, which can use all columns of the row. NULL
stays NULL. ``docs/masks.md`` has the rules of each mask.
"""

import re
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy import ColumnElement, literal_column

from stream_app.datasets.mask_names import is_mask_name
from stream_app.datasets.query_text import QueryTextError, check_expression
from stream_app.exports.columns import Column, Kind
from stream_app.exports.masks.base import HASH_KEYS, Mask, text_of
from stream_app.exports.plugins import MASKS_GROUP, UnusablePlugin, load_plugins
from streaming_exporter.errors import Rejected

log = structlog.get_logger(__name__)

FEWEST_CHARACTERS = 8
"""The mask ``last4`` shows nothing of a shorter text: it would show half of it or more."""


class Email(Mask):
    """``j***@example.com``: the first character and the domain; ``***`` for a text that is no plain address.

    An address with fewer than three characters before the ``@`` shows its domain only.
    """

    name = "email"

    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value."""
        text = text_of(column)
        return (
            f"CASE WHEN {text} ~ '^[^@[:space:]]+@[A-Za-z0-9-]+([.][A-Za-z0-9-]+)+$' THEN"
            f" CASE WHEN strpos({text}, '@') > 3 THEN left({text}, 1) ELSE '' END"
            f" || '***' || substr({text}, strpos({text}, '@'))"
            f" WHEN {text} IS NOT NULL THEN '***' END"
        )


class Last4(Mask):
    """``****1234``: the last four of at least eight characters; ``****`` for shorter texts.

    Blanks and punctuation do not count and are not shown: they can be around a short text.
    """

    name = "last4"

    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value."""
        text = text_of(column)
        bare = f"regexp_replace({text}, '[[:space:][:punct:]]', '', 'g')"
        return (
            f"CASE WHEN length({bare}) >= {FEWEST_CHARACTERS} THEN '****' || right({bare}, 4)"
            f" WHEN {text} IS NOT NULL THEN '****' END"
        )


class Hash(Mask):
    """64 hexadecimal digits: HMAC-SHA256 (RFC 2104) of the text in UTF-8, with a key of the deployment.

    Equal texts have equal hashes, in all datasets. Values can only be tried with the key. Without the key
    the result is NULL.
    """

    name = "hash"
    needs_keys = True

    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value."""
        keys = f"nullif(current_setting('{HASH_KEYS}', true), '')"
        inner, outer = (
            f"(SELECT decode(split_part({keys}, ',', {part}), 'hex'))" for part in (1, 2)
        )  # each is calculated once for a statement
        message = f"convert_to({text_of(column)}, 'UTF8')"
        return f"encode(sha256({outer} || sha256({inner} || {message})), 'hex')"


class Null(Mask):
    """No value."""

    name = "null"
    keeps_type = True

    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value."""
        # The type below any domain: a domain can forbid NULL.
        return f"CAST(NULL AS {column.cast or column.type})"


def check_mask_class(mask: Mask) -> None:
    """Check what the service uses of a mask from another package.

    Raises:
        UnusablePlugin: an attribute has a wrong value, or :meth:`Mask.sql` returns no SQL expression.
    """
    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", mask.name) is None:
        raise UnusablePlugin(f"its name is {mask.name!r:.200}; allowed: small letters, digits and _")
    for name in ("keeps_type", "needs_keys"):
        if not isinstance(value := getattr(mask, name), bool):
            raise UnusablePlugin(f"its attribute {name} is {value!r:.200}; allowed: True, False")
    try:
        sql = mask.sql(Column("value", "text", "text", Kind.TEXT, cast="pg_catalog.text"))
        check_expression(sql)
    except QueryTextError as error:
        raise UnusablePlugin(f"the result of sql is no SQL expression: {error}") from error
    except Exception as error:  # the code of another package can raise anything
        raise UnusablePlugin(f"sql fails: {type(error).__name__}: {error}") from error


_BUILT_IN: dict[str, Mask] = {mask.name: mask for mask in (Email(), Last4(), Hash(), Null())}

MASK_PLUGINS = load_plugins(MASKS_GROUP, Mask, taken=_BUILT_IN, check=check_mask_class)
"""The masks of other packages."""

MASKS: dict[str, Mask] = _BUILT_IN | dict(MASK_PLUGINS.items)
"""The masks by name."""


def mask_expression(mask: str, column: Column) -> ColumnElement[Any]:
    """Return the SQL expression that replaces the values of ``column``.

    Args:
        mask: the name of a mask, or an SQL expression, which the datasets file has been checked for.
        column: the column, with its own type or as it is masked.
    """
    if is_mask_name(mask):
        return literal_column(expression_sql(_named_sql(mask, column)))
    return literal_column(expression_sql(mask))


def _named_sql(name: str, column: Column) -> str:
    mask = _named(name)
    if name in _BUILT_IN:
        return mask.sql(column)
    try:
        return mask.sql(column)
    except (Exception, SystemExit) as error:  # the code of another package can raise anything
        log.exception("mask.failed", mask=name, column_type=column.type)
        raise Rejected(
            f"a column of the dataset cannot be masked with {name!r}; operators: the log has the reason",
            code="missing_mask",
        ) from error


def _named(name: str) -> Mask:
    """Return the mask.

    Raises:
        Rejected: there is none, because its package is not installed here or cannot be used.
    """
    if name not in MASKS:
        raise Rejected(
            f"a column of the dataset has the mask {name!r}, which is not available; operators: install the "
            "package with this mask on all machines, or correct the datasets file",
            code="missing_mask",
        )
    return MASKS[name]


def expression_sql(expression: str) -> str:
    """Return an SQL expression in brackets, where its last line can end with a comment."""
    return f"(\n{expression}\n)"


def masked_column(mask: str, column: Column) -> Column:
    """Return ``column`` as callers see it for whom the mask with this name is applied."""
    if _named(mask).keeps_type:
        return replace(column, mask=mask, nullable=True)
    return Column(
        column.name,
        "text",
        "text",
        Kind.TEXT,
        column.nullable,
        cast="pg_catalog.text",
        mask=mask,
        encoding=column.encoding,
    )


def needs_keys(mask: str | None) -> bool:
    """Return whether the SQL of ``mask`` reads :data:`HASH_KEYS`."""
    return mask is not None and is_mask_name(mask) and _named(mask).needs_keys
