"""The number formats of cells. They change how a value is shown, never the value. Pure."""

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.file_words import PLAIN_BOOLEANS
from stream_app.exports.formats.identifiers import is_identifier
from stream_app.locales import LocaleRules

SHOWN_DIGITS = 2
"""Digits of a fraction that are always shown; further ones only if the value has them."""

DATE, TIME = "yyyy-mm-dd", "hh:mm:ss"
BOOLEAN = '"{yes}";"{yes}";"{no}"'
"""Excel needs none: it shows truth values in its user's language. LibreOffice would show 1 and 0."""


def number_format_of(
    item: Column, rules: LocaleRules | None, booleans: tuple[str, str] = PLAIN_BOOLEANS
) -> str | None:
    """Return the number format of a column's cells, or ``None`` for the general one.

    Programs show the separators of their user's own language in numbers, so only dates depend on the locale.
    Numbers without a declared scale have the general format, because only it shows both 1e-20 and 1e200.
    """
    date = DATE if rules is None else rules.excel_date
    match item.kind:
        case Kind.BOOLEAN:
            yes, no = (word.upper() for word in booleans) if booleans == PLAIN_BOOLEANS else booleans
            return BOOLEAN.format(yes=yes, no=no)
        case Kind.INTEGER:
            return "0" if is_identifier(item) else "#,##0"
        case Kind.NUMERIC if item.precision is not None:
            return _decimal(item, item.precision[1])
        case Kind.DATE:
            return date
        case Kind.TIME:
            return TIME
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return f"{date} {TIME}"
    return None


def _decimal(item: Column, scale: int) -> str:
    """Return the format of a number with ``scale`` digits behind the point.

    A question mark leaves the width of a digit empty where there is none, so that points are aligned.
    """
    whole = "0" if is_identifier(item) else "#,##0"
    if scale <= 0:
        return whole
    shown = min(scale, SHOWN_DIGITS)
    return f"{whole}.{'0' * shown}{'?' * (scale - shown)}"


def shown_length(item: Column, value: bytes) -> int:
    """Return about how many characters a program shows of a number, given as its plain digits."""
    whole, _, fraction = value.decode().partition(".")
    form = item.number_format or number_format_of(item, None) or ""
    separators = (len(whole.lstrip("-")) - 1) // 3 if "," in form else 0
    digits = len(form.partition(".")[2]) if "." in form else len(fraction)
    return len(whole) + separators + (digits + 1 if digits else 0)
