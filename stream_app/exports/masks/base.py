"""The interface of a mask: SQL that replaces the values of a column. Pure."""

from abc import ABC, abstractmethod

from stream_app.exports.columns import Column, quote_name

HASH_KEYS = "streaming_exporter.hash_keys"
"""The setting of a transaction that has the keys of the mask ``hash``, so that no SQL text has them."""


class Mask(ABC):
    """A way to replace the values of a column. Plug-ins can define others.

    Attributes:
        name: what datasets files call the mask.
        keeps_type: whether the masked value has the type of the column. Otherwise it is a text.
        needs_keys: whether the SQL reads :data:`HASH_KEYS`.
    """

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
