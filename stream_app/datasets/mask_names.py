"""Tells the names of masks from SQL expressions, in the ``mask`` of a column. Pure."""

import re
from functools import lru_cache
from importlib.metadata import entry_points

from stream_app.datasets.query_text import QueryTextError, check_expression

BUILT_IN = ("email", "last4", "hash", "null")
"""The masks of the service itself."""

GROUP = "streaming_exporter.masks"
"""The group of entry points by which other packages define masks."""


def is_mask_name(mask: str) -> bool:
    """Return whether ``mask`` is a name. A single word is a name; everything else is an SQL expression."""
    return re.fullmatch(r"\w+", mask.strip()) is not None


@lru_cache(maxsize=1)
def mask_names() -> tuple[str, ...]:
    """Return the names of all masks."""
    others = sorted({entry.name for entry in entry_points(group=GROUP)} - set(BUILT_IN))
    return (*BUILT_IN, *others)


def check_mask(mask: str) -> None:
    """Check the ``mask`` of a column.

    Raises:
        ValueError: it is neither the name of a mask nor one SQL expression.
    """
    if not is_mask_name(mask):
        try:
            check_expression(mask)
        except QueryTextError as error:
            raise ValueError(f"as an SQL expression: {error}") from error
    elif mask not in mask_names():
        raise ValueError(
            f"there is no mask {mask!r}; allowed: {', '.join(mask_names())}, or an SQL expression, where the "
            f"name of a column alone is in brackets, such as ({mask})"
        )
