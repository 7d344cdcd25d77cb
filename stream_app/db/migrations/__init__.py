"""Alembic migrations of the service's own tables; the source's tables are never touched."""

from pathlib import Path
from typing import TYPE_CHECKING

from stream_app.settings import Settings

if TYPE_CHECKING:
    # It is loaded when it is needed: workers and APIs only compare revisions, and would start later with it.
    from alembic.config import Config

HERE = Path(__file__).parent

NEWER = "newer_revision"
"""Attribute of the configuration: the revision of the tables, if this version does not know it."""


def config(settings: Settings) -> "Config":
    """Return Alembic's configuration, without a file."""
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(HERE))
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["settings"] = settings
    return configuration


def upgrade(settings: Settings, revision: str = "head") -> str | None:
    """Upgrade the tables to ``revision``. Of several processes one migrates, and the others wait.

    Returns:
        The revision of the tables if a newer version has migrated them, otherwise None. Such tables are not
        changed: this version works with them.
    """
    from alembic import command

    configuration = config(settings)
    command.upgrade(configuration, revision)
    newer: str | None = configuration.attributes.get(NEWER)
    return newer


def missing(current: str | None) -> list[str]:
    """Return the revisions after ``current``, which the tables lack, newest first; none if they are newer.

    The name of each migration's file begins with its revision, and revisions are in the order of their names.
    """
    return sorted((revision for revision in _revisions() if revision > (current or "")), reverse=True)


def is_newer(current: str | None) -> bool:
    """Return whether the tables have a revision of a newer version: it is after all that are known."""
    return current is not None and current > max(_revisions())


def _revisions() -> set[str]:
    return {path.name.partition("_")[0] for path in (HERE / "versions").glob("[0-9]*_*.py")}
