"""Faults of the datasets file: where each is, what is wrong, and what is allowed. Pure."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from streaming_exporter.errors import BadSettings
from streaming_exporter.validation import sentence

Place = tuple[str | int, ...]

NEAR = 0.6
"""Similarity (:mod:`difflib`) from which a name is suggested."""

SHOWN = 100
"""Limit of characters of a value in an error."""

NO_URL = (
    "a URL has a password, which must not be in the file; set it in an environment variable, and name that "
    'variable: url_env = "CRM_DATABASE_URL"'
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the datasets file.

    Attributes:
        file: the file; ``None`` if it is not about one.
        line: the line, from 1; ``None`` if the file cannot be read.
        place: the keys and indexes of the value, as the file has them.
        text: what is wrong, and what is allowed.
    """

    file: Path | None
    line: int | None
    place: Place
    text: str

    def __str__(self) -> str:
        """Return ``file:line: datasets.orders.columns: text``."""
        where = [] if self.file is None else [str(self.file) + (f":{self.line}" if self.line else "")]
        return ": ".join([*where, *([dotted(self.place)] if self.place else []), self.text])


class DatasetsFileError(BadSettings):
    """The datasets file cannot be used. The text has a line for each fault, with its place and its reason."""

    code = "bad_datasets_file"

    def __init__(self, faults: str | Sequence[Fault]) -> None:
        """Create the error of ``faults``, or of a text about one fault without a place."""
        self.faults = (Fault(None, None, (), faults),) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


def dotted(place: Place) -> str:
    """Return a place as a key of TOML."""
    return ".".join(map(str, place))


def nearest(name: str, names: Collection[str]) -> str:
    """Return ``; did you mean X?`` for the name that is most similar, or an empty text."""
    by_case = {item.casefold(): item for item in sorted(names)}
    found = difflib.get_close_matches(name.casefold(), by_case, 1, NEAR)
    return f"; did you mean {by_case[found[0]]}?" if found else ""


def faults_of(
    error: ValidationError, model: type[BaseModel], renamed: Mapping[str, str]
) -> Iterator[tuple[Place, str]]:
    """Yield the place and the text of each fault that pydantic has found in an entry.

    Args:
        error: the error.
        model: the model of the entry.
        renamed: the keys of the file for fields that have other names there.
    """
    for problem in error.errors(include_url=False):
        place = tuple(part for part in problem["loc"] if part != "[key]")
        yield tuple(renamed.get(str(part), part) for part in place), _text(problem, model, renamed)


def _text(problem: ErrorDetails, model: type[BaseModel], renamed: Mapping[str, str]) -> str:
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        owner = _model_at(model, problem["loc"][:-1])
        fields = sorted({renamed.get(name, name) for name in owner.model_fields} - {"name"})
        if key == "url" and "url_env" in fields:
            return NO_URL
        if f"{key}_env" in fields:
            return (
                "a secret must not be in the file; set it in an environment variable, and name that "
                f'variable: {key}_env = "NAME"; or name a file that has it: {key}_file'
            )
        return f"there is no key {key!r}{nearest(key, fields)}; allowed: {', '.join(fields)}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return "the key is missing"
    if "url_env" in problem["loc"]:  # the value is possibly the URL itself, with its password
        return f"it is not the name of a variable (the value is not shown): {NO_URL}"
    if str(problem["loc"][-1:][0] if problem["loc"] else "").endswith("_env"):
        return (
            "it is not the name of a variable (the value is not shown): a secret must not be in the file; "
            "set it in an environment variable, and name that variable"
        )
    return f"{sentence(problem)}; it is {str(problem['input'])[:SHOWN]!r}"


def _model_at(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the table at ``place``."""
    found = model
    for part in place:
        field = found.model_fields.get(str(part))
        inner = None if field is None else _model_in(field.annotation)
        if inner is not None:
            found = inner
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside a type, such as a mapping of models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        return next(filter(None, map(_model_in, get_args(annotation))), None)
    return None
