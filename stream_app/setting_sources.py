"""The sources of settings: the environment, files with one secret each, and a settings file.

There is at most one settings file: the one that ``EXPORTER_SETTINGS_FILE`` names, or else
:data:`VENV_SETTINGS_FILE`. Files in the current folder are not read.
"""

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from streaming_exporter.file_secret import FileSecret
from streaming_exporter.kafka_settings import FROM_FILE, PREFIX

SETTINGS_FILE = f"{PREFIX}SETTINGS_FILE"
"""Variable with the path of a settings file."""

VENV_SETTINGS_FILE = Path(sys.prefix, "streaming-exporter.env")
"""The settings file of a virtual environment, in its own folder.

Every program of the virtual environment reads it, unless ``EXPORTER_SETTINGS_FILE`` names another file.
Outside of a virtual environment there is no such file.
"""


class SettingSource(StrEnum):
    """A place where a setting can be set. The value is its name in texts."""

    ENVIRONMENT = "environment"
    FILE = "settings file"


_OF_OTHERS = re.compile(
    r"EXPORTER_(TEST_|LOCAL_)"
    # Kubernetes sets these in every container for a service whose name begins with "exporter-".
    r"|\w+_SERVICE_(HOST|PORT(_\w+)?)\Z|\w+_PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?\Z"
)

_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def settings_file() -> Path | None:
    """Return the path of the settings file, or ``None`` if there is none."""
    named = os.environ.get(SETTINGS_FILE, "").strip()
    if named:
        return Path(named)
    in_venv = sys.prefix != sys.base_prefix
    return VENV_SETTINGS_FILE if in_venv and VENV_SETTINGS_FILE.is_file() else None


def file_variables() -> dict[str, str]:
    """Return the variables of the settings file.

    Raises:
        ValueError: it cannot be read.
    """
    path = settings_file()
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8") as lines:
            return {key.upper(): value or "" for key, value in dotenv_values(stream=lines).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{SETTINGS_FILE}: {str(path)!r} cannot be read: {error}") from error


def environment_variables() -> dict[str, str]:
    """Return the variables of the environment, with their names in upper case.

    The addresses of Services are left out. Kubernetes sets such variables in pods for each Service of the
    namespace: one with the name ``exporter-metrics`` sets ``EXPORTER_METRICS_PORT=tcp://10.0.0.1:9100``.
    """
    found = {key.upper(): value for key, value in os.environ.items()}
    return {
        key: value
        for key, value in found.items()
        if not (key.endswith("_PORT") and _SERVICE_ADDRESS.match(value))
    }


def sources_of(field: str) -> frozenset[SettingSource]:
    """Return the places that set the value of a setting: one, both with the same value, or none.

    Where the values differ, the environment counts.
    """
    names = [f"{PREFIX}{field.upper()}", f"{PREFIX}{field.upper()}{FROM_FILE}"]
    here, there = (
        [variables.get(name, "").strip() for name in names]
        for variables in (environment_variables(), file_variables())
    )
    if any(here):
        return frozenset(
            {SettingSource.ENVIRONMENT, SettingSource.FILE} if here == there else {SettingSource.ENVIRONMENT}
        )
    return frozenset({SettingSource.FILE} if any(there) else ())


def is_secret(field: FieldInfo) -> bool:
    """Return whether a field contains a secret."""
    return "SecretStr" in repr(field.annotation)


class Variables(PydanticBaseSettingsSource):
    """Source of pydantic-settings: the fields that variables set, with secrets from their files."""

    def __init__(
        self, settings: type[BaseSettings], variables: Mapping[str, str], may_be_empty: Collection[str] = ()
    ) -> None:
        """An empty or blank variable counts as not set, except for the fields in ``may_be_empty``."""
        super().__init__(settings)
        self._variables = variables
        self._may_be_empty = may_be_empty

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value, the name of the field, and False, because the value is not JSON.

        Raises:
            ValueError: a secret is given twice, or its file cannot be read.
        """
        name = f"{PREFIX}{field_name.upper()}"
        value = self._variables.get(name)
        if value is not None and not value.strip() and field_name not in self._may_be_empty:
            value = None
        from_file = self._variables.get(name + FROM_FILE, "")
        path = from_file.strip() if from_file and is_secret(field) else ""
        if not path:
            return value, field_name, False
        if value is not None:
            raise ValueError(f"{name} and {name}{FROM_FILE} are both set; allowed: one of them")
        return _file_secret(name, path), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of the fields that the variables set."""
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                found[name] = value
        return found


def secret_variable(name: str) -> SecretStr | None:
    """Return the secret that a variable has which is no setting, such as the URL of a further source.

    As with settings, ``NAME_FILE`` names a file with it, and the environment counts before the settings file.

    Returns:
        The secret, or ``None`` if the variable is not set.

    Raises:
        ValueError: the secret is given twice, or its file cannot be read.
    """
    name = name.upper()
    for variables in (environment_variables(), file_variables()):
        value, path = (variables.get(key, "").strip() for key in (name, name + FROM_FILE))
        if value and path:
            raise ValueError(f"{name} and {name}{FROM_FILE} are both set; allowed: one of them")
        if path:
            return _file_secret(name, path)
        if value:
            return SecretStr(value)
    return None


def _file_secret(name: str, path: str) -> FileSecret:
    try:
        secret = FileSecret(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{name}{FROM_FILE}: {path!r} cannot be read ({reason}); allowed: the path of a file"
        ) from error
    if not secret.get_secret_value().strip():
        raise ValueError(f"{name}{FROM_FILE}: {path!r} is empty; allowed: a file that holds the secret")
    return secret


def known_variables(fields: Mapping[str, FieldInfo]) -> list[str]:
    """Return the names of all variables that the service reads."""
    own = [f"{PREFIX}{name.upper()}" for name in fields]
    files = [f"{PREFIX}{name.upper()}{FROM_FILE}" for name, field in fields.items() if is_secret(field)]
    return [*own, *files, SETTINGS_FILE]


def unknown_variables(fields: Mapping[str, FieldInfo], variables: Iterable[str]) -> dict[str, str | None]:
    """Return the unknown variables with the service's prefix, each with the most similar known name."""
    known = known_variables(fields)

    def nearest(name: str) -> str | None:
        rests = [other.removeprefix(PREFIX) for other in known]
        found = difflib.get_close_matches(name.removeprefix(PREFIX), rests, 1, 0.7)
        return PREFIX + found[0] if found else None

    return {
        name: nearest(name)
        for name in sorted(variables)
        if name.startswith(PREFIX) and name not in known and not _OF_OTHERS.match(name)
    }
