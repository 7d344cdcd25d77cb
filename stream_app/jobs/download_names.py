"""The name under which people save the file of a job: with the name that they gave the export. Pure."""

import re
import unicodedata

MAX_BYTES = 120
"""Longest start of a file's name. File systems take 255 bytes, and a date, a number and endings follow."""

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks without a look of their own, such as those that choose the colour of a sign before them:
those with the property Default_Ignorable_Code_Point of Unicode."""


def download_name(file_name: str, dataset: str, name: str | None) -> str:
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
    kept: list[str] = []
    for char in _INVISIBLE.sub("", unicodedata.normalize("NFC", name)):
        match unicodedata.category(char)[0]:
            case "L" | "N":
                kept.append(char)
            case "M":
                if kept and kept[-1] not in "-_":  # else it belongs to a sign that is not kept
                    kept.append(char)
            case _:
                kept.append("_" if char == "_" else "-")
    begin = re.sub("-+", "-", "".join(kept)).strip("-_")
    return begin.encode()[:MAX_BYTES].decode(errors="ignore").strip("-_")
