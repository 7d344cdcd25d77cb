"""Errors of pydantic in the words of the service. Pure.

Everything that people send is validated with pydantic: events, bodies, parameters, settings, the datasets
file, options of commands. All of these places say what is wrong with :func:`sentence`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

PYDANTIC_TYPES: Final = frozenset(get_args(ErrorType))
"""Types of pydantic's own errors. Others are raised by the service, and have its words."""

_TIME = "expected a time with its offset, such as 2026-11-24T06:00:00Z"
_DATE = "expected a date, such as 2026-11-24"
_CLOCK = "expected a time of day, such as 06:30"
_DURATION = "expected a duration, such as 90 (seconds) or PT1M30S"
_NUMBER = "expected a number"
_OBJECT = "expected an object"
_LIST = "expected a list"
_UUID = "expected a UUID, such as 4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10"
_URL = "expected a URL, such as https://example.com"
_INVALID = "it is not valid"

SENTENCES: Mapping[str, str] = {
    "missing": "it is missing",
    "extra_forbidden": "it is not known",
    "string_type": "expected a text",
    "string_sub_type": "expected a text",
    "string_unicode": "expected a text of valid Unicode characters",
    "string_not_ascii": "expected a text of ASCII characters",
    "string_too_short": "expected at least {min_length} {characters}",
    "string_too_long": "expected at most {max_length} {characters}",
    "bytes_type": "expected bytes",
    "bytes_too_short": "expected at least {min_length} bytes",
    "bytes_too_long": "expected at most {max_length} bytes",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number with fewer digits",
    "int_from_float": "expected a whole number",
    "finite_number": "expected a finite number",
    "multiple_of": "expected a multiple of {multiple_of}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "decimal_max_digits": "expected at most {max_digits} digits",
    "decimal_max_places": "expected at most {decimal_places} decimal places",
    "decimal_whole_digits": "expected at most {whole_digits} digits before the decimal point",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "none_required": "it must be left out",
    "too_short": "expected at least {min_length} {values}",
    "too_long": "expected at most {max_length} {values}",
    "date_from_datetime_inexact": _DATE,
    "date_past": "expected a date in the past",
    "date_future": "expected a date in the future",
    "datetime_past": "expected a time in the past",
    "datetime_future": "expected a time in the future",
    "json_invalid": "expected valid JSON",
    "json_type": "expected valid JSON",
    "invalid_key": "expected texts as names",
    "recursion_loop": "it contains itself",
}
"""By the type of an error: the sentence. Types that are not here have that of the group of their names."""

_GROUPS = (
    (re.compile(r"datetime_|timezone_"), _TIME),
    (re.compile(r"date_"), _DATE),
    (re.compile(r"time_delta_"), _DURATION),
    (re.compile(r"time_"), _CLOCK),
    (re.compile(r"uuid_"), _UUID),
    (re.compile(r"url_"), _URL),
    (re.compile(r"float_|decimal_|complex_"), _NUMBER),
    (re.compile(r"dict_|mapping_|model_|dataclass_|arguments_type|get_attribute"), _OBJECT),
    (re.compile(r"list_|tuple_|set_|frozen_set_|iterable_|iteration_"), _LIST),
)

EXAMPLES: Mapping[str, str] = {
    "filters": '{"kind": "proof"}',
    "parameters": '{"region": "emea"}',
    "options": '{"compression": "gzip"}',
    "split": '{"rows": 100000}',
    "claims": '{"team": "emea"}',
    "columns": '["id", "kind"]',
    "recipients": '["ada@example.com"]',
    "email_recipients": '["ada@example.com"]',
}
"""By the name of a field: what it looks like."""

NOT_EMPTY = {"columns": "name at least one column, or leave it out for all columns"}
"""By the name of a list: the sentence for an empty one."""

_PATTERNS: dict[str, str] = {}

MAX_SHOWN = 100
"""Characters of a value in an error."""


def explained(pattern: str, words: str) -> str:
    """Return ``pattern``, a regular expression for a field, and remember in words what it allows.

    Raises:
        ValueError: the pattern has other words already.
    """
    if _PATTERNS.setdefault(pattern, words) != words:
        raise ValueError(f"the pattern {pattern} has two explanations")
    return pattern


def sentence(problem: ErrorDetails | Mapping[str, Any]) -> str:
    """Return what is wrong with a value and what is allowed, without the value itself.

    Args:
        problem: one of the errors that ``ValidationError.errors()`` returns.
    """
    kind, context = str(problem["type"]), dict(problem.get("ctx") or {})
    if kind in ("value_error", "assertion_error"):
        return _lowered(str(context.get("error") or _INVALID))
    if kind not in PYDANTIC_TYPES:
        return _lowered(str(problem["msg"]))
    name = next((part for part in reversed(problem["loc"]) if isinstance(part, str)), "")
    if kind == "string_pattern_mismatch":
        return f"expected {_PATTERNS.get(str(context['pattern']), 'a text of another form')}"
    if kind == "too_short" and context.get("actual_length") == 0 and name in NOT_EMPTY:
        return NOT_EMPTY[name]
    if kind == "string_too_short" and context.get("min_length") == 1:
        return "it must not be empty"
    template = SENTENCES.get(kind) or next((text for form, text in _GROUPS if form.match(kind)), _INVALID)
    text = template.format_map(_shown(context))
    has_example = template in (_OBJECT, _LIST) and name in EXAMPLES
    return f"{text} such as {EXAMPLES[name]}" if has_example else text


def with_value(problem: ErrorDetails | Mapping[str, Any]) -> str:
    """Return the sentence and the value that was found, cut to :data:`MAX_SHOWN` characters."""
    text = sentence(problem)
    return text if problem["type"] == "missing" else f"{text}, got {_value(problem['input'])}"


def field_of(problem: ErrorDetails | Mapping[str, Any]) -> str:
    """Return the path of the field, such as ``options.delimiter``."""
    # Pydantic adds the types of a union to the path.
    parts = [str(part) for part in problem["loc"]]
    return ".".join(part for part in parts if "[" not in part and not part.startswith("constrained-"))


def _value(value: object) -> str:
    try:
        return f"{value!r:.{MAX_SHOWN}}"
    except RecursionError:
        return f"{type(value).__name__} with too many levels"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _shown(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a sentence: numbers with groups of digits, choices without quotation marks."""
    found = {
        name: f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        for name, value in context.items()
    }
    found["expected"] = found.get("expected", "another value").replace("'", "")
    length = context.get("min_length", context.get("max_length"))
    found["characters"] = "character" if length == 1 else "characters"
    found["values"] = "value" if length == 1 else "values"
    return found
