"""The values of a query's parameters: checked against their types before PostgreSQL receives them. Pure."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from stream_app.datasets.typed_values import RELATIVE, TEMPORAL, Kind, checked_text
from streaming_exporter.errors import Rejected

if TYPE_CHECKING:  # the models call check_parameter()
    from stream_app.datasets.models import Dataset, Parameter


@dataclass(frozen=True, slots=True)
class TypeOfParameter:
    """A type of parameters, with the name of PostgreSQL's type (``base``), which is in ``pg_catalog``."""

    kind: Kind
    base: str
    labels: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The name of the type in SQL."""
        return f"pg_catalog.{self.base}"


TYPES: Mapping[str, TypeOfParameter] = {
    "text": TypeOfParameter(Kind.TEXT, "text"),
    "integer": TypeOfParameter(Kind.INTEGER, "int4"),
    "bigint": TypeOfParameter(Kind.INTEGER, "int8"),
    "numeric": TypeOfParameter(Kind.NUMERIC, "numeric"),
    "float": TypeOfParameter(Kind.FLOAT, "float8"),
    "boolean": TypeOfParameter(Kind.BOOLEAN, "bool"),
    "date": TypeOfParameter(Kind.DATE, "date"),
    "time": TypeOfParameter(Kind.TIME, "time"),
    "timestamp": TypeOfParameter(Kind.TIMESTAMP, "timestamp"),
    "timestamptz": TypeOfParameter(Kind.TIMESTAMPTZ, "timestamptz"),
    "uuid": TypeOfParameter(Kind.UUID, "uuid"),
}
"""By the types of the datasets file."""


def parameter_texts(dataset: "Dataset", given: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the value of each parameter as text that PostgreSQL reads; ``None`` for NULL.

    Args:
        dataset: the dataset.
        given: the parameters of a request. Relative times in them, such as ``now-7d``, have been resolved.

    Raises:
        Rejected: a parameter is unknown or missing, or its value is not allowed.
    """
    for name in given:
        if name not in dataset.parameters:
            raise Rejected(
                f"dataset {dataset.name!r} has no parameter {name!r}",
                code="unknown_parameter",
                field=f"parameters.{name}",
                allowed=list(dataset.parameters) or ["no parameters"],
            )
    values = given_parameters(dataset, given)
    return {name: _text(name, item, values[name]) for name, item in dataset.parameters.items()}


def given_parameters(dataset: "Dataset", given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each parameter: that of the request, or the default; ``None`` for NULL.

    A null in the request counts as no value, as in its other fields. Otherwise a null would be a way around
    the default and the choices.
    """
    return {
        name: parameter.default if given.get(name) is None else given[name]
        for name, parameter in dataset.parameters.items()
    }


def _text(name: str, parameter: "Parameter", value: Any) -> str | None:
    field = f"parameters.{name}"
    if value is None:
        if parameter.required:
            raise Rejected(
                f"the dataset needs a value of this parameter, a {parameter.type}",
                code="missing_parameter",
                field=field,
                allowed=None if parameter.choices is None else map(_shown, parameter.choices),
            )
        return None
    text = parameter_text(parameter.type, value, field)
    if parameter.choices is None:
        return text
    kind = TYPES[parameter.type].kind
    wanted = _comparable(text, kind)
    for choice in parameter.choices:
        chosen = parameter_text(parameter.type, choice, field)
        if _comparable(chosen, kind) == wanted:
            return chosen  # as the file writes it: 1.0 and 1 are different texts in a query
    raise Rejected(
        f"{value!r:.100} is not one of the choices",
        code="bad_parameter_value",
        field=field,
        allowed=map(_shown, parameter.choices),
    )


def parameter_text(type_name: str, value: Any, field: str) -> str:
    """Check a value of a parameter, which is not NULL, and return it as text that PostgreSQL reads.

    Raises:
        Rejected: the type has no such value.
    """
    kind = TYPES[type_name]
    if kind.kind is Kind.BOOLEAN and value in ("true", "false"):
        return str(value)  # commands and forms have texts only
    try:
        return checked_text(kind, value, field)
    except Rejected as error:
        error.code = "bad_parameter_value"
        raise


def check_parameter(name: str, parameter: "Parameter") -> None:
    """Check the choices and the default of a parameter in the datasets file.

    Raises:
        ValueError: one of them is no value of the type, or the default is not one of the choices.
    """
    if parameter.required and parameter.default is not None:
        raise ValueError(f"parameters.{name}: it is required, so its default has no use; remove one of them")
    try:
        for choice in parameter.choices or ():
            parameter_text(parameter.type, choice, f"parameters.{name}.choices")
        if not is_relative_time(parameter, parameter.default):
            _text(name, parameter.model_copy(update={"required": False}), parameter.default)
    except Rejected as error:
        raise ValueError(str(error)) from error


def is_relative_time(parameter: "Parameter", value: Any) -> bool:
    """Return whether ``value`` is a time such as ``now-7d``, relative to the time of the request."""
    return (
        TYPES[parameter.type].kind in TEMPORAL
        and isinstance(value, str)
        and RELATIVE.fullmatch(value) is not None
    )


def _comparable(text: str, kind: Kind) -> Hashable:
    """Return a value that is equal for all spellings of the same value, such as ``1`` and ``1.0``."""
    match kind:
        case Kind.NUMERIC | Kind.FLOAT:
            return Decimal(text)
        case Kind.TIME:
            return time.fromisoformat(text)
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return text


def _shown(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool) else str(choice)
