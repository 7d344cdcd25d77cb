"""Sentences about the warnings of a finished file, for mails and commands. Pure."""

from collections.abc import Mapping

TEXTS: Mapping[str, tuple[str, str]] = {
    "replaced_characters": (
        "1 character could not be printed and is shown by its code; choose Excel or CSV to keep the text",
        "{:,} characters could not be printed and are shown by their codes; choose Excel or CSV to keep the "
        "text",
    ),
    "cut_cells": (
        "1 text was too long for a cell and was cut; choose CSV to keep the whole text",
        "{:,} texts were too long for a cell and were cut; choose CSV to keep the whole texts",
    ),
    "escaped_characters": (
        "1 control character is written by its code",
        "{:,} control characters are written by their codes",
    ),
    "guarded_formulas": (
        "1 text begins like a formula and got an apostrophe in front",
        "{:,} texts begin like a formula and got an apostrophe in front",
    ),
    "unrepresentable_values": (
        "1 value does not fit the type of its column in the file and is empty",
        "{:,} values do not fit the types of their columns in the file and are empty",
    ),
    "row_level_security": ("the database can hide rows of this table from the export",) * 2,
    "split_automatically": ("the export was divided into {:,} files, because one would be too large",) * 2,
}
"""By the name of a warning: the sentence about one value, and about several."""


def warning_texts(warnings: Mapping[str, int]) -> list[str]:
    """Return a sentence about each warning. One without a known name has its name and its number."""
    return [
        TEXTS[name][count != 1].format(count) if name in TEXTS else f"{name.replace('_', ' ')}: {count:,}"
        for name, count in warnings.items()
        if count > 0
    ]
