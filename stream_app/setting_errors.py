"""Errors of settings, one line each: the variable, its value, and what is allowed."""

import logging
import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stream_app.setting_sources import (
    environment_variables,
    file_variables,
    is_secret,
    unknown_variables,
)
from stream_app.settings import Settings
from streaming_exporter.errors import BadSettings
from streaming_exporter.file_secret import FileSecret
from streaming_exporter.kafka_settings import FROM_FILE, PREFIX
from streaming_exporter.url_text import HIDDEN, hide_credentials, scheme_and_hosts
from streaming_exporter.validation import sentence

log = logging.getLogger(__name__)

SHOWN = 200
"""Limit of characters of a value in an error."""

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


def load_settings() -> Settings:
    """Load the settings of this process.

    Raises:
        BadSettings: variables have values that are not allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings("\n".join(problems(error))) from error
    except ValueError as error:
        raise BadSettings(str(error)) from error


def problems(error: ValidationError) -> list[str]:
    """Return one line for each value that is not allowed."""
    return [_line(problem) for problem in error.errors(include_url=False)]


def unknown_settings() -> dict[str, str | None]:
    """Return the unknown variables with the service's prefix, and the nearest setting of each."""
    return unknown_variables(Settings.model_fields, [*environment_variables(), *file_variables()])


def warn_of_unknown_settings() -> None:
    """Log unknown variables with the service's prefix: misspelt ones do not stop the service."""
    for name, nearest in unknown_settings().items():
        guess = f"; did you mean {nearest}?" if nearest else ""
        log.warning("settings.unknown_found: %s is not a setting%s", name, guess)


def _line(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = Settings.model_fields.get(name)
    if field is None:
        return sentence(problem)
    value = problem["input"]
    variable = f"{PREFIX}{name.upper()}" + (FROM_FILE if isinstance(value, FileSecret) else "")
    reason = _reason(problem, field)
    if hide_credentials(str(value)) != str(value):
        reason = _QUOTED.sub(f"'{HIDDEN}'", reason)  # the reason can quote a part of the value
    return f"{variable}: {_read(value, field)}{reason}"


def _read(value: Any, field: FieldInfo) -> str:
    """Return a text with the value that was read, without its secret parts."""
    if isinstance(value, FileSecret):
        return f"the content of {str(value.path)!r} (not shown) was read; "
    if not is_secret(field):
        return f"{hide_credentials(str(value))[:SHOWN]!r} was read; "
    shown = scheme_and_hosts(str(value))
    return f"{shown or 'a value (not shown)'} was read; "


def _reason(problem: ErrorDetails, field: FieldInfo) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"allowed: {allowed(field)}"


def allowed(field: FieldInfo) -> str:
    """Return the allowed values of a field as a text."""
    kind, limits = _kind(field.annotation, field.metadata)
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{_range(limits)}"
    patterns = [note.pattern for note in limits if getattr(note, "pattern", None)]
    return f"text that matches {patterns[0]}" if patterns else "text that is not empty"


def _kind(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """Return the type inside an optional or annotated type, and all its annotations."""
    notes = list(metadata)
    while True:
        if hasattr(annotation, "__metadata__"):
            notes += [note for item in annotation.__metadata__ for note in getattr(item, "metadata", [item])]
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(item for item in get_args(annotation) if item is not type(None))
        else:
            return annotation, notes


def _range(limits: list[Any]) -> str:
    words: Mapping[type, tuple[str, str]] = {
        Gt: ("gt", "more than"),
        Ge: ("ge", "at least"),
        Lt: ("lt", "less than"),
        Le: ("le", "at most"),
    }
    bounds: dict[str, float] = {}
    for limit in limits:
        for kind, (attribute, word) in words.items():
            if isinstance(limit, kind):
                known = bounds.get(word)
                value = getattr(limit, attribute)
                narrower = max if word in ("more than", "at least") else min
                bounds[word] = value if known is None else narrower(known, value)
    return "".join(f", {word} {value:,}" for word, value in bounds.items())
