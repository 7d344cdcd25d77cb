"""The kinds of rows that are measured. Does no I/O."""

from enum import StrEnum


class Kind(StrEnum):
    """A kind of rows. All kinds have ten columns."""

    LEDGER = "ledger"
    """Entries of the sample's ledger: 400 bytes each. To move the bytes costs most."""
    SHORT = "short"
    """Numbers, codes, a truth value and a time: 70 bytes each. To render the values costs most."""
