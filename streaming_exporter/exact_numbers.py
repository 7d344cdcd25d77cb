"""Reads decimal numbers of JSON with all their digits: those that a double rounds, as texts. Pure.

Filters compare the digits. A rounded number is another value, which no row has.
"""

import re
from decimal import Decimal, InvalidOperation
from math import isfinite

CAN_BE_ROUNDED = re.compile(rb"[0-9.]{16}|[eE]-[0-9]{3}")
"""What a message must have for a decimal number that a double rounds: it keeps 15 digits, unless the number
is nearly zero."""


def exact_number(text: str) -> float | str:
    """Return a decimal number as a ``float``, or as its own text if a ``float`` is written with other digits.

    It is the argument ``parse_float`` of :func:`json.loads` and of ``tomllib``. A number beyond 1.8e308 is
    infinity.
    """
    number = float(text)
    try:
        return number if not isfinite(number) or Decimal(text) == Decimal(repr(number)) else text
    except InvalidOperation:  # an exponent that even decimal numbers do not have
        return text
