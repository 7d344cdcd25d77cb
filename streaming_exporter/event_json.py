"""Reads the JSON of events, and refuses what PostgreSQL cannot store. Does no I/O."""

import json
import re
from codecs import BOM_UTF8
from math import isinf
from typing import Any

from pydantic_core import from_json

from streaming_exporter.errors import Unreadable
from streaming_exporter.exact_numbers import CAN_BE_ROUNDED, exact_number

CAN_BE_HUGE = re.compile(rb"[0-9][eE]\+?[0-9]{2}|(?<![0-9])[0-9]{300}")
"""What a message must have for a number beyond 1.8e308, which is read as infinity and cannot be stored."""


def read_json(message: bytes) -> Any:
    """Read the JSON of a message. A decimal number that a double would round is a text with all its digits.

    A byte order mark before it is ignored, which RFC 8259 allows: some programs write one.

    Raises:
        Unreadable: it is no JSON, or it holds NUL characters or infinite numbers.
    """
    message = message.removeprefix(BOM_UTF8)
    try:
        content = from_json(message, allow_inf_nan=False)
        if CAN_BE_ROUNDED.search(message):
            content = json.loads(message, parse_float=exact_number)
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from error
    if b"\\u0000" in message and has_nul(content):
        raise Unreadable("contains a NUL character (\\u0000), which cannot be stored")
    if CAN_BE_HUGE.search(message) and _has_infinity(content):
        raise Unreadable("contains a number that is too large, such as 1e400; write it as a text")
    return content


def _has_infinity(content: object) -> bool:
    if isinstance(content, float):
        return isinf(content)
    if isinstance(content, dict):
        return any(map(_has_infinity, content.values()))
    return isinstance(content, list) and any(map(_has_infinity, content))


def has_nul(content: object) -> bool:
    """Return whether a text in the content, or a name, has a NUL character."""
    if isinstance(content, str):
        return "\0" in content
    if isinstance(content, dict):
        return any(has_nul(part) for pair in content.items() for part in pair)
    return isinstance(content, list) and any(map(has_nul, content))
