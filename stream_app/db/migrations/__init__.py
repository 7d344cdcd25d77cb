"""Alembic migrations of the service's own tables; the source's tables are never touched."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError

from stream_app.settings import Settings

HERE = Path(__file__).parent


def config(settings: Settings) -> Config:
    """Return Alembic's configuration, without a file."""
    configuration = Config()
    configuration.set_main_option("script_location", str(HERE))
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["settings"] = settings
    return configuration


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Upgrade the tables to ``revision``. Of several processes one migrates, and the others wait."""
    command.upgrade(config(settings), revision)


def missing(current: str | None) -> list[str]:
    """Return the revisions after ``current``, which the tables lack; none if the tables are newer."""
    scripts = ScriptDirectory(str(HERE))
    try:
        return [str(script.revision) for script in scripts.iterate_revisions("head", current or "base")]
    except RevisionError:
        return []
