"""Finds the text of a message in a language.

``en.toml`` and ``de.toml`` have the same keys. A further language is one more file of this kind.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

DEFAULT = "en"
"""The language of texts whose language is not known."""

FOLDER = Path(__file__).parent
LANGUAGES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
PLACEHOLDER = re.compile(r"\{(\w+)\}")

PAGE_PARTS = ("page.", "warnings.", "errors.")
"""Beginnings of the keys that the scripts of the page use."""

PARTS_ON_DEMAND = {
    "destinations": ("page.destinations.",),
    "operations": ("page.operations.", "page.dead_letters.", "findings."),
    "provider": ("page.provider.",),
}
"""Parts of the page that only some users need, with the beginnings of their keys."""

Message = str | Mapping[str, str]
"""A text, or its forms ``one`` and ``other`` for the number in ``{count}``."""


@cache
def messages(language: str) -> Mapping[str, Message]:
    """Return all messages of one of :data:`LANGUAGES` by their keys, such as ``page.jobs.download``."""
    return dict(_flat(tomllib.loads((FOLDER / f"{language}.toml").read_text("utf-8")), ""))


def page_messages(language: str, part: str | None = None) -> dict[str, Message]:
    """Return the messages that the scripts of the page use.

    Args:
        language: one of :data:`LANGUAGES`.
        part: one of :data:`PARTS_ON_DEMAND`; by default what every user needs.

    Raises:
        KeyError: there is no such part.
    """
    wanted = PAGE_PARTS if part is None else PARTS_ON_DEMAND[part]
    others = () if part else tuple(begin for begins in PARTS_ON_DEMAND.values() for begin in begins)
    return {
        key: found
        for key, found in messages(language).items()
        if key.startswith(wanted) and not key.startswith(others)
    }


def known_language(tag: object) -> str | None:
    """Return which of :data:`LANGUAGES` a language tag such as ``de-AT`` means, or ``None``."""
    first = re.split("[-_]", tag)[0].lower() if isinstance(tag, str) else ""
    return first if first in LANGUAGES else None


def accepted_language(header: str) -> str:
    """Return the language that a value of ``Accept-Language`` prefers (RFC 9110, section 12.5.4)."""
    return next(filter(None, map(known_language, _preferred(header))), DEFAULT)


def text(language: str, key: str, plural: int | None = None, /, **values: object) -> str:
    """Return the text of a message.

    Args:
        language: one of :data:`LANGUAGES`.
        key: the key of the message.
        plural: the number that chooses the form of a message that has several; by default ``count``.
        values: what the placeholders stand for. Whole numbers are written as the language does it.

    Raises:
        KeyError: there is no such message, or a value is missing.
    """
    found = messages(language)[key]
    number = values.get("count") if plural is None else plural
    form = found if isinstance(found, str) else found["one" if number == 1 else "other"]
    return PLACEHOLDER.sub(lambda match: _shown(values[match[1]], language), form)


def _shown(value: object, language: str) -> str:
    if not isinstance(value, int):
        return str(value)
    if language == DEFAULT:
        return f"{value:,}"
    from babel.numbers import format_decimal  # the command line has no Babel

    return format_decimal(value, locale=language)


def _flat(tables: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Message]]:
    for name, value in tables.items():
        if isinstance(value, str) or set(value) == {"one", "other"}:
            yield prefix + name, value
        else:
            yield from _flat(value, f"{prefix}{name}.")


def _preferred(header: str) -> Iterable[str]:
    """Yield the tags of the header, the one with the highest weight first."""
    weighted = []
    for part in header.split(","):
        tag, _, parameter = part.partition(";")
        try:
            weight = float(parameter.partition("=")[2] or 1)
        except ValueError:
            weight = 0.0
        if 0 < weight <= 1:
            weighted.append((-weight, tag.strip()))
    return [tag for _, tag in sorted(weighted, key=lambda item: item[0])]
