"""Options that several commands share: a dataclass with a field for each option."""

import functools
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command as Typer needs it: each field of its dataclasses is a parameter of its own.

    Typer reads the options of a command from its signature. A parameter whose type is a dataclass stands for
    the fields of that class, in their order; the command gets an object of the class.
    """
    groups: dict[str, type[Any]] = {}
    parameters: list[Parameter] = []
    for item in signature(command, eval_str=True).parameters.values():
        if is_dataclass(item.annotation) and isinstance(item.annotation, type):
            groups[item.name] = item.annotation
            parameters += _parameters_of(item.annotation)
        else:
            parameters.append(item.replace(kind=Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def expanded(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    expanded.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {item.name: item.annotation for item in parameters}
    return expanded


def _parameters_of(group: type[Any]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
