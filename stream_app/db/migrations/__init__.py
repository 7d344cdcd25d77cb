"""Alembic migrations of the service's own tables; the source's tables are never touched."""

from pathlib import Path
from typing import TYPE_CHECKING

from stream_app.settings import Settings

if TYPE_CHECKING:
    # It is loaded when it is needed: workers and APIs only compare revisions, and would start later with it.
    from alembic.config import Config

HERE = Path(__file__).parent


def config(settings: Settings) -> "Config":
    """Return Alembic's configuration, without a file."""
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(HERE))
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["settings"] = settings
    return configuration


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Upgrade the tables to ``revision``. Of several processes one migrates, and the others wait."""
    from alembic import command

    command.upgrade(config(settings), revision)


def missing(current: str | None) -> list[str]:
    """Return the revisions after ``current``, which the tables lack, newest first; none if they are newer.

    The name of each migration's file begins with its revision, and revisions are in the order of their names.
    """
    revisions = {path.name.partition("_")[0] for path in (HERE / "versions").glob("[0-9]*_*.py")}
    return sorted((revision for revision in revisions if revision > (current or "")), reverse=True)
