"""Reads decimal numbers of JSON with all their digits: those that a double rounds, as texts. Pure.

Filters compare the digits. A rounded number is another value, which no row has.

Many programs print a double with 17 digits: 19.99 as ``19.989999999999998``. Such a text means the double.
"""

import re
from decimal import Decimal, InvalidOperation
from math import isfinite

CAN_BE_ROUNDED = re.compile(rb"[0-9.]{16}|[eE]-[0-9]{3}")
"""What a message must have for a decimal number that a double rounds: it keeps 15 digits, unless the number
is nearly zero."""


DIGITS_OF_A_DOUBLE = 17
"""So many digits are enough to print every double, and no more are printed."""


def exact_number(text: str) -> float | str:
    """Return a decimal number as a ``float``, or as its own text if a ``float`` is written with other digits.

    A ``float`` is written with the fewest digits that are enough, or with :data:`DIGITS_OF_A_DOUBLE`.

    It is the argument ``parse_float`` of :func:`json.loads` and of ``tomllib``. A number beyond 1.8e308 is
    infinity.
    """
    number = float(text)
    try:
        exact = Decimal(text) if isfinite(number) else None
    except InvalidOperation:  # an exponent that even decimal numbers do not have
        return text
    if exact is None or exact == Decimal(repr(number)):
        return number
    is_short = len(exact.as_tuple().digits) <= DIGITS_OF_A_DOUBLE
    return number if is_short and exact == Decimal(f"{number:.{DIGITS_OF_A_DOUBLE - 1}e}") else text
