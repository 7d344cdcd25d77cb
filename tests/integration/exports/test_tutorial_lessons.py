"""The lessons of docs/tutorial.md about the datasets file: each request gives the file that is shown."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from pydantic_core import from_json

from stream_app.datasets.file import DatasetsFile, load_datasets
from stream_app.exports.formats.registry import check_format
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.registry import PoolSize, Sources
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.documents import ROOT
from tests.integration.exports.conftest import task_for
from tests.integration.exports.test_tutorial import block

PART = re.compile(r"## What the datasets file can do\n(.*?)\n## ", re.DOTALL)


@dataclass(frozen=True)
class Lesson:
    """A lesson with its blocks. ``toml`` has those of the lessons before as well."""

    name: str
    toml: str
    request: str
    file: str


def text() -> str:
    found = PART.search((ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    assert found is not None
    return found[1]


def blocks(content: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", content, re.DOTALL)


def lessons() -> list[Lesson]:
    toml = ""
    found = []
    for part in text().split("\n### ")[1:]:
        toml += "\n".join(blocks(part, "toml"))
        if requests := blocks(part, "json"):
            (file,) = [*blocks(part, "csv"), *blocks(part, "ndjson")]
            found.append(Lesson(part.partition("\n")[0], toml, requests[0], file))
    return found


LESSONS = lessons()


@pytest.fixture
async def shop(
    database: asyncpg.Connection, schema: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Create the tables. Returns a function that replaces their schemas by that of the test."""

    def here(content: str) -> str:
        return re.sub(r"\b(shop|crm)\.(?=customers|invoices|contacts)", f"{schema}.", content)

    for sql in blocks(text(), "sql"):
        await database.execute(here(sql))
    monkeypatch.setenv("CRM_DATABASE_URL", settings.source_dsn)
    return here


def loaded(folder: Path, toml: str) -> DatasetsFile:
    file = folder / "datasets.toml"
    file.write_text(toml, "utf-8")
    return load_datasets(file)


def test_each_thing_has_its_lesson() -> None:
    shown = [lesson.name for lesson in LESSONS]
    assert shown == [
        "Roles",
        "Scopes",
        "Masks",
        "Row-level security",
        "Queries with parameters",
        "A second source",
        "Labels",
        "Time zones and locales",
    ]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
async def test_the_request_gives_the_file_that_is_shown(
    lesson: Lesson,
    shop: Callable[[str], str],
    exporter_of: Callable[..., Exporter],
    storage: ObjectStore,
    settings: Settings,
    tmp_path: Path,
) -> None:
    content = loaded(tmp_path, shop(lesson.toml))
    sources = Sources(settings, content, PoolSize(2, lambda limit: limit))
    exporter = exporter_of(*content.datasets.values(), sources=sources, catalog=Catalog(sources))
    request = ExportRequest.parse(from_json(lesson.request))
    data = await exporter.run(task_for(request), ExportProgress())
    assert storage.read(data.key or "").decode() == lesson.file
    await sources.close()


async def test_without_the_role_or_the_claim_there_is_nothing(
    shop: Callable[[str], str], exporter_of: Callable[..., Exporter], settings: Settings, tmp_path: Path
) -> None:
    content = loaded(tmp_path, shop(LESSONS[-1].toml))
    sources = Sources(settings, content, PoolSize(2, lambda limit: limit))
    exporter = exporter_of(*content.datasets.values(), sources=sources, catalog=Catalog(sources))
    for name, code in (("customers", "unknown_dataset"), ("invoices", "missing_claim")):
        request = ExportRequest.parse(
            {"user_id": "u", "export_type": name, "format": "csv", "scope": "all", "claims": {}}
        )
        with pytest.raises(Rejected) as refused:
            await exporter.run(task_for(request), ExportProgress())
        assert refused.value.code == code
    await sources.close()


def test_the_format_is_one_that_the_service_accepts() -> None:
    scope: dict[str, type] = {}
    exec(block("python", "WikiFormat"), scope)
    check_format(scope["WikiFormat"]())


async def test_the_commands_check_and_show_the_file(
    shop: Callable[[str], str], settings: Settings, tmp_path: Path
) -> None:
    loaded(tmp_path, shop(LESSONS[-1].toml))
    environment = {
        **os.environ,
        "EXPORTER_SETTINGS_FILE": os.devnull,
        "EXPORTER_DATASETS_FILE": str(tmp_path / "datasets.toml"),
        "EXPORTER_SOURCE_DATABASE_URL": settings.source_dsn,
        "EXPORTER_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    outputs = []
    for line in blocks(text(), "sh")[0].splitlines():
        command = [sys.executable, "-m", "producers", *line.split()[1:]]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    shown = outputs[1]
    assert "email" in shown
    assert "credit" not in shown, "the column needs the role finance"
