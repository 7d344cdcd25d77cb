"""Reads how ``docker-compose.yml`` runs the project's processes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cache import UsageError

_VARIABLE = re.compile(r"\$\{(\w+)(:?[-?]|(?=\}))")
_TIME = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")
_STOP_DEFAULT = "10s"
"""The time that Compose gives a service that states no ``stop_grace_period``."""

_IMPLEMENTED = {
    "image", "build", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "environment", "command",
    "depends_on", "volumes", "stop_grace_period", "healthcheck", "ports", "user", "env_file",
}  # fmt: skip
"""The keys of a service that :func:`read_service` uses or that do not concern one container on its own."""


@dataclass(frozen=True)
class ComposeService:
    """One service of a Compose file.

    Attributes:
        volumes: ``source:target:mode`` with absolute sources.
        user: the user that replaces the image's; empty for the image's own.
        health_check: the command that ends with 0 in a healthy container; empty if there is none.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    read_only: bool
    tmpfs: tuple[str, ...]
    cap_drop: tuple[str, ...]
    security_opt: tuple[str, ...]
    volumes: tuple[str, ...]
    user: str
    stop_seconds: float
    health_check: tuple[str, ...]


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with each ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?reason}`` replaced.

    Without the colon, as in ``${NAME-default}``, an empty variable counts as set.

    Raises:
        UsageError: a variable with ``:?`` is empty or not set, or one with ``?`` is not set.
    """
    found = _VARIABLE.search(text)
    if found is None:
        return text
    end = _end(text, found.end())
    name, operator = found.groups()
    value = variables.get(name, None)
    is_missing = value is None or (operator.startswith(":") and not value)
    if is_missing and operator.endswith("?"):
        raise UsageError(f"{name} is not set: {text[found.end() : end]}")
    if is_missing and operator.endswith("-"):
        value = interpolate(text[found.end() : end], variables)
    value = value or ""
    return text[: found.start()] + value + interpolate(text[end + 1 :], variables)


def _end(text: str, start: int) -> int:
    """Return the index of the brace that closes the variable whose default begins at ``start``."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise UsageError(f"a variable of {text!r} is not closed")


def read_services(file: Path, variables: Mapping[str, str]) -> dict[str, ComposeService]:
    """Return the services of a Compose file that run the project's own image, by name.

    Raises:
        UsageError: a variable is missing, or a service uses a key that is not implemented here.
    """
    services: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["services"]
    return {
        name: _service(name, content, file.parent, variables)
        for name, content in services.items()
        if "build" in content
    }


def _service(
    name: str, content: Mapping[str, Any], folder: Path, variables: Mapping[str, str]
) -> ComposeService:
    if unknown := content.keys() - _IMPLEMENTED:
        raise UsageError(f"service {name} of the Compose file uses {', '.join(sorted(unknown))}")

    def texts(key: str) -> tuple[str, ...]:
        return tuple(interpolate(str(item), variables) for item in content.get(key, ()))

    environment = _read_files(content.get("env_file", ()), folder)
    for key, value in content.get("environment", {}).items():
        environment[key] = interpolate(str(value), variables)
    return ComposeService(
        name=name,
        command=texts("command"),
        environment=environment,
        read_only=bool(content.get("read_only", False)),
        tmpfs=texts("tmpfs"),
        cap_drop=texts("cap_drop"),
        security_opt=texts("security_opt"),
        volumes=tuple(_absolute(volume, folder) for volume in texts("volumes")),
        user=str(content.get("user", "")),
        stop_seconds=_seconds(str(content.get("stop_grace_period", _STOP_DEFAULT))),
        health_check=_health_check(content.get("healthcheck", {})),
    )


def _read_files(files: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Return the variables of files with lines ``NAME=value``. A later file takes precedence.

    Raises:
        UsageError: a file is missing that is required.
    """
    found: dict[str, str] = {}
    for file in files:
        path = folder / file["path"]
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                name, separator, value = line.strip().partition("=")
                if separator and not name.startswith("#"):
                    found[name] = _unquoted(value)
        elif file.get("required", True):
            raise UsageError(f"{path} is missing, which the Compose file requires")
    return found


def _unquoted(value: str) -> str:
    """Return the value without the quotation marks around it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _absolute(volume: str, folder: Path) -> str:
    source, separator, rest = volume.partition(":")
    return f"{(folder / source).resolve()}{separator}{rest}" if source.startswith((".", "/")) else volume


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None or not match[0]:
        raise UsageError(f"{text!r} is not a duration such as 50s or 1m30s")
    return 60.0 * int(match[1] or 0) + int(match[2] or 0)


def _health_check(content: Mapping[str, Any]) -> tuple[str, ...]:
    match content.get("test"):
        case ["CMD", *command]:
            return tuple(command)
        case ["CMD-SHELL", command]:
            return ("sh", "-c", command)
        case _:
            return ()
