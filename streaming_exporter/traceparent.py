"""``traceparent``, the header of W3C Trace Context: https://www.w3.org/TR/trace-context/. Pure."""

import re
from typing import Annotated

from pydantic import BeforeValidator

MAX_LENGTH = 512
"""Characters of the longest accepted value. Version 00 has 55; later versions can append to them."""

_WELL_FORMED = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})"
    r"-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})(?P<span_id>[0-9a-f]{16})-[0-9a-f]{2}"
    r"(?P<more>-[!-~]*)?"
)


def match(value: object) -> re.Match[str] | None:
    """Match a well-formed ``value``; the match has the groups ``trace_id`` and ``span_id``."""
    if not isinstance(value, str) or len(value) > MAX_LENGTH:
        return None
    found = _WELL_FORMED.fullmatch(value)
    return None if found and found["version"] == "00" and found["more"] is not None else found


def well_formed(value: object) -> str | None:
    """Return ``value``, or ``None`` if it is not well formed, as the recommendation requires."""
    found = match(value)
    return found and found[0]


Traceparent = Annotated[str | None, BeforeValidator(well_formed)]
"""A field that accepts every value: an invalid trace header must not fail an export."""
