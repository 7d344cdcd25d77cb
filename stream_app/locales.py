"""How a locale writes numbers and dates: the data of Unicode's CLDR, by Babel. Pure.

Digits are always 0 to 9, because spreadsheets and programs read no others in a file.
"""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from streaming_exporter.errors import Rejected

if TYPE_CHECKING:
    from babel import Locale

_MAX_GROUP = 9
"""Babel has groups of 1000 digits for locales without groups."""

_FIELD = re.compile(r"'([^']*)'|([A-Za-z])\2*|[^A-Za-z']+")
_INVISIBLE = dict.fromkeys(map(ord, "\u200e\u200f\u061c"))
"""Marks for the direction of text. They are around separators of dates, and no program reads them."""


@dataclass(frozen=True, slots=True)
class LocaleRules:
    """How a locale writes numbers and dates.

    Attributes:
        tag: its BCP 47 tag, such as ``de-DE``.
        decimal: separates the integer part of a number from its fraction.
        group: separates groups of digits; empty for no groups.
        groups: digits of the last group of the integer part, and of the groups before it.
        date_parts: the parts of a date: ``d``, ``dd``, ``M``, ``MM``, ``yyyy``, and texts between them.
    """

    tag: str
    decimal: str
    group: str
    groups: tuple[int, int]
    date_parts: tuple[str, ...]

    @property
    def delimiter(self) -> str:
        """The delimiter of lists: a semicolon where the decimal separator is a comma."""
        return ";" if self.decimal == "," else ","

    def date_text(self, day: date) -> str:
        """Return a date as text."""
        values = {
            "d": f"{day.day}",
            "dd": f"{day.day:02}",
            "M": f"{day.month}",
            "MM": f"{day.month:02}",
            "yyyy": f"{day.year:04}",
        }
        return "".join(values.get(part, part) for part in self.date_parts)

    def number_text(self, number: Decimal | int) -> str:
        """Return a number as text, with groups and all of its digits."""
        whole, _, fraction = (
            f"{number:f}".partition(".") if isinstance(number, Decimal) else (str(number), "", "")
        )
        if self.group:
            last, others = self.groups
            whole = re.sub(
                rf"(\d)(?=(\d{{{others}}})*\d{{{last}}}$)", lambda digit: digit[0] + self.group, whole
            )
        return f"{whole}{self.decimal}{fraction}" if fraction else whole

    @property
    def excel_date(self) -> str:
        """The date as a number format of Excel."""
        return "".join(
            part.lower() if part in _DATE_PARTS else re.sub(r"(.)", r"\\\1", part) for part in self.date_parts
        )

    @property
    def sql_date(self) -> str:
        """The date as a format of PostgreSQL's ``to_char``."""
        return "".join(_DATE_PARTS.get(part) or f'"{part}"' for part in self.date_parts)


_DATE_PARTS = {"d": "FMDD", "dd": "DD", "M": "FMMM", "MM": "MM", "yyyy": "YYYY"}

ISO_DATE = ("yyyy", "-", "MM", "-", "dd")


def find_locale(tag: str, field: str = "options.locale") -> LocaleRules:
    """Return the rules of the locale with a BCP 47 tag, such as ``de-DE`` or ``pt_BR``.

    Raises:
        Rejected: CLDR has no data of such a locale. ``field`` is the field that has the tag.
    """
    rules = _rules(tag.replace("-", "_").lower())
    if rules is None:
        raise Rejected(
            f"there is no locale {tag!r:.100}{_nearest(tag)}; locales are such as de-DE, fr-FR or en-GB",
            code="unknown_locale",
            field=field,
        )
    return rules


def _locale(tag: str) -> "Locale | None":
    from babel import Locale, UnknownLocaleError
    from babel.localedata import locale_identifiers

    try:
        locale = Locale.parse(tag)
    except (UnknownLocaleError, ValueError):
        return None
    return locale if str(locale) in locale_identifiers() else None


def _nearest(tag: str) -> str:
    from difflib import get_close_matches

    from babel.localedata import locale_identifiers

    known = {name.replace("_", "-").lower(): name.replace("_", "-") for name in locale_identifiers()}
    found = get_close_matches(tag.replace("_", "-").lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {known[found[0]]}?" if found else ""


@lru_cache(maxsize=256)
def _rules(name: str) -> LocaleRules | None:
    from babel.numbers import get_decimal_symbol, get_group_symbol

    locale = _locale(name)
    if locale is None:
        return None
    first, others = locale.decimal_formats[None].grouping
    has_groups = first <= _MAX_GROUP
    return LocaleRules(
        tag=str(locale).replace("_", "-"),
        decimal=get_decimal_symbol(locale),
        group=get_group_symbol(locale) if has_groups else "",
        groups=(first, others),
        date_parts=_date(locale.date_formats["short"].pattern),
    )


def _date(pattern: str) -> tuple[str, ...]:
    """Return the parts of the short date, with four digits of the year."""
    parts = []
    for match in _FIELD.finditer(pattern.translate(_INVISIBLE)):
        if match[2] is None:
            parts.append(match[1] if match[1] is not None else match[0])
        else:
            parts.append("yyyy" if match[2] == "y" else match[0])
    fields = [part[0] for part in parts if part in _DATE_PARTS]
    # A few locales show the era or the name of the month.
    known = all(part in _DATE_PARTS or not re.match("[A-Za-z]", part) for part in parts)
    return tuple(parts) if known and sorted(fields) == ["M", "d", "y"] else ISO_DATE


_BOOLEANS = {
    "ar": "نعم لا", "bg": "да не", "bn": "হ্যাঁ না", "ca": "sí no", "cs": "ano ne", "da": "ja nej",
    "de": "ja nein",
    "el": "ναι όχι", "en": "yes no", "es": "sí no", "et": "jah ei", "fa": "بله خیر", "fi": "kyllä ei",
    "fr": "oui non", "he": "כן לא", "hi": "हाँ नहीं", "hr": "da ne", "hu": "igen nem", "id": "ya tidak",
    "it": "sì no", "ja": "はい いいえ", "ko": "예 아니요", "lt": "taip ne", "lv": "jā nē", "nb": "ja nei",
    "nl": "ja nee", "nn": "ja nei", "no": "ja nei", "pl": "tak nie", "pt": "sim não", "ro": "da nu",
    "ru": "да нет", "sk": "áno nie", "sl": "da ne", "sr": "да не", "sv": "ja nej", "th": "ใช่ ไม่ใช่",
    "tr": "evet hayır", "uk": "так ні", "vi": "có không", "zh": "是 否",
}  # fmt: skip
"""Yes and no by language, as Unicode's CLDR has them (``posix/messages``), which Babel leaves out."""


def boolean_words(tag: str) -> tuple[str, str] | None:
    """Return the words for true and false in a language, such as ``de-AT``; ``None`` if unknown."""
    words = _BOOLEANS.get(re.split("[-_]", tag)[0].lower())
    if words is None:
        return None
    yes, no = words.split(" ")
    return yes, no
