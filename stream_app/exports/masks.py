"""Masks: SQL that replaces the values of a column for callers who must not see them. Pure.

A mask is the name of one of :data:`MASKS`, or an SQL expression, which can use all columns of the row. NULL
stays NULL. ``docs/masks.md`` has the rules of each mask.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, literal_column

from stream_app.datasets.mask_names import is_mask_name
from stream_app.exports.columns import Column, Kind, quote_name
from streaming_exporter.errors import Rejected

HASH_KEYS = "streaming_exporter.hash_keys"
"""The setting of a transaction that has the keys of the mask ``hash``, so that no SQL text has them."""

FEWEST_CHARACTERS = 8
"""The mask ``last4`` shows nothing of a shorter text: it would show half of it or more."""


class Mask(ABC):
    """A way to replace the values of a column. A plug-in can define others.

    Attributes:
        interface: version of the interface between the service and masks.
        name: what datasets files call the mask.
        keeps_type: whether the masked value has the type of the column. Otherwise it is a text.
        needs_keys: whether the SQL reads :data:`HASH_KEYS`.
    """

    interface = 1
    name: str
    keeps_type = False
    needs_keys = False

    @abstractmethod
    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value.

        It must work for a column of every type, must not fail for any value, and must show less than the
        whole of every value. :func:`text_of` returns the value as a text.
        """


def text_of(column: Column) -> str:
    """Return SQL for the value of ``column`` as a text, which is compared character by character.

    Without the collation, patterns fail for columns whose collation is not deterministic.
    """
    return f'CAST({quote_name(column.name)} AS pg_catalog.text) COLLATE pg_catalog."C"'


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
    """``****1234``: the last four characters of a text with at least eight; ``****`` for shorter ones."""

    name = "last4"

    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value."""
        text = text_of(column)
        return (
            f"CASE WHEN length({text}) >= {FEWEST_CHARACTERS} THEN '****' || right({text}, 4)"
            f" WHEN {text} IS NOT NULL THEN '****' END"
        )


class Hash(Mask):
    """64 hexadecimal digits: HMAC-SHA256 (RFC 2104) of the text in UTF-8, with a key of the deployment.

    Equal values have equal hashes, in all datasets. Nobody who lacks the key can try values. Without the key
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


MASKS: dict[str, Mask] = {mask.name: mask for mask in (Email(), Last4(), Hash(), Null())}
"""The masks by name."""


def mask_expression(mask: str, column: Column) -> ColumnElement[Any]:
    """Return the SQL expression that replaces the values of ``column``.

    Args:
        mask: the name of a mask, or an SQL expression, which the datasets file has been checked for.
        column: the column, with its own type or as it is masked.
    """
    if is_mask_name(mask):
        return literal_column(f"({_named(mask).sql(column)})")
    return literal_column(expression_sql(mask))


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
    return Column(column.name, "text", "text", Kind.TEXT, column.nullable, cast="pg_catalog.text", mask=mask)


def needs_keys(mask: str | None) -> bool:
    """Return whether the SQL of ``mask`` reads :data:`HASH_KEYS`."""
    return mask is not None and is_mask_name(mask) and _named(mask).needs_keys
