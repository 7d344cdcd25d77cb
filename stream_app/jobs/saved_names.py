"""The name under which people save the file of a job: with the name that they gave the export. Pure."""

import re
import unicodedata

MAX_BYTES = 120
"""Longest begin of a file's name. File systems take 255 bytes, and a date, a number and endings follow."""


def saved_name(file_name: str, dataset: str, name: str | None) -> str:
    """Return the name under which a file is saved: ``Ledger-October-2026-11-24.csv``.

    Objects and events have the name of the dataset, because the name of an export can be private.

    Args:
        file_name: the name that the object has, such as ``ledger-2026-11-24.csv``.
        dataset: the dataset or bundle, with which that name begins. Other names stay as they are.
        name: the name of the export: any one line of text, or ``None``.
    """
    begin = _begin(name or "")
    if not begin or not file_name.startswith(f"{dataset}-"):
        return file_name
    return begin + file_name.removeprefix(dataset)


def _begin(name: str) -> str:
    """Return the letters and digits of ``name``, with hyphens between its words.

    No system gives another sign a meaning then: no folder, no hidden file, no option, no domain.
    """
    kept = "".join(char if _is_kept(char) else "-" for char in unicodedata.normalize("NFC", name))
    begin = re.sub("-+", "-", kept).strip("-_")
    return begin.encode()[:MAX_BYTES].decode(errors="ignore").strip("-_")


def _is_kept(char: str) -> bool:
    return char == "_" or unicodedata.category(char)[0] in "LMN"
