"""The wheel: what it holds, what it needs, and that it works where nothing else of the project is."""

import asyncio
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from importlib.metadata import PathDistribution, distribution, version
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dev.stack import Stack
from stream_app.db.migrations import missing
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import ensure_topics
from tests.topics import events_on

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "producers", "stream_app", "streaming_exporter")
EMITTING = {"aiokafka", "pydantic", "pydantic-settings"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def needed(wheel: Path) -> dict[str, set[str]]:
    """The packages that each extra names, and by ``""`` those that are needed anyway."""
    info = next(path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    found: dict[str, set[str]] = {"": set()}
    package = PathDistribution(info)
    for extra in package.metadata.get_all("Provides-Extra", []):
        found[extra] = set()
    for line in package.requires or ():
        requirement = Requirement(line)
        for extra, names in found.items():
            marker = requirement.marker
            if not extra if marker is None else extra and marker.evaluate({"extra": extra}):
                extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
                names.add(canonicalize_name(requirement.name) + extras)
    return found


def closure(names: Iterable[str]) -> set[str]:
    """Those packages, each perhaps with extras, and what they need, as installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            if (wanted.name, extra) in found:
                continue
            found.add((wanted.name, extra))
            needs = [Requirement(line) for line in distribution(wanted.name).requires or ()]
            waiting += [
                need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in found}


class Installation:
    """A virtual environment with the wheel, in which of all else only some packages can be imported."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        install = [
            Path(sys.executable).with_name("uv"),
            "pip",
            "install",
            "--quiet",
            "--offline",
            "--no-deps",
        ]
        subprocess.run(
            [*map(str, install), "--python", str(folder / "bin" / "python"), str(wheel)], check=True
        )
        (self._packages,) = folder.glob("lib/python*/site-packages")

    def offer(self, names: Iterable[str]) -> None:
        """Let these packages of the environment that runs the tests be found here too."""
        for name in names:
            package = distribution(name)
            tops = {file.parts[0] for file in package.files or () if ".." not in file.parts}
            for top in tops - {"__pycache__", "bin"}:
                target = self._packages / top
                if not target.exists():
                    target.symlink_to(Path(str(package.locate_file(top))))

    def run(
        self, program: str, *arguments: str, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of its programs, far from the repository."""
        return subprocess.run(
            [self._folder / "bin" / program, *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], **(env or {})},
            capture_output=True,
            text=True,
        )


Install = Callable[..., Installation]


@pytest.fixture
def install(tmp_path: Path, wheel: Path) -> Install:
    def make(names: Iterable[str]) -> Installation:
        made = Installation(tmp_path / "environment", wheel)
        made.offer(closure(names))
        return made

    return make


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Migrations, the page, the sample's SQL, markers of types: whatever is no byte code."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    there = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert held == there
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert {
        "api/page/static/index.html",
        "stream_app/db/migrations/versions/0001_jobs_and_schedules.py",
    } <= held


def test_it_brings_the_descriptions_for_other_languages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name.partition(".data/data/share/streaming-exporter/")[2] for name in archive.namelist()}
    schemas = {f"schemas/{path.name}" for path in (ROOT / "docs" / "schemas").iterdir()}
    assert held - {""} == schemas | {"asyncapi.yaml", "openapi.json"}


def test_what_each_role_needs(needed: dict[str, set[str]]) -> None:
    assert needed[""] == EMITTING
    assert {"cli", "worker", "api", "parquet", "local"} <= needed.keys()
    assert needed["cli"] == {"httpx", "joserfc", "rich", "typer"}
    assert needed["parquet"] == {"pyarrow"}
    assert "faust-streaming" in needed["worker"] - needed["api"]
    assert "fastapi" in needed["api"] - needed["worker"]
    assert needed["cli"] < needed["worker"] & needed["api"]
    assert needed["worker"] | needed["api"] | needed["parquet"] < needed["local"]


async def test_an_event_is_published_with_nothing_but_what_the_package_alone_needs(
    install: Install, stack: Stack, settings: Settings
) -> None:
    emitting = install(EMITTING)
    for lacking in ("typer", "httpx", "sqlalchemy", "faust", "fastapi", "cramjam"):
        assert "ModuleNotFoundError" in emitting.run("python", "-c", f"import {lacking}").stderr
    await ensure_topics(settings)
    job = uuid4()
    code = (
        "import asyncio, uuid\n"
        "from streaming_exporter.publisher import Publisher\n"
        "from stream_app.settings import Settings\n"
        "async def main():\n"
        "    async with Publisher(Settings(), source='/services/billing') as publisher:\n"
        f"        await publisher.cancel(uuid.UUID('{job}'))\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(emitting.run, "python", "-c", code, env=stack.settings())
    assert done.returncode == 0, done.stderr
    assert job in {event.job_id for event in await events_on(settings, Topic.REQUESTS)}


def test_without_the_extra_the_command_says_what_it_lacks(install: Install) -> None:
    emitting = install(EMITTING)
    told = emitting.run("exporter", "--help")
    assert told.returncode == 0, told.stderr
    assert "streaming-exporter[cli]" in told.stdout
    assert emitting.run("exporter", "--version").stdout.strip() == version("streaming-exporter")
    refused = emitting.run("exporter", "status", str(uuid4()))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "streaming-exporter[cli]" in refused.stderr


def test_with_the_extra_it_is_a_client_and_no_service(install: Install, needed: dict[str, set[str]]) -> None:
    client = install(needed[""] | needed["cli"])
    told = client.run("exporter", "--help")
    assert told.returncode == 0, told.stderr
    assert {"request", "status", "watch", "download", "token"} <= set(told.stdout.split())
    assert client.run("exporter", "--version").stdout.strip() == version("streaming-exporter")
    token = client.run("exporter", "token", "--user-id", "u")
    assert token.stdout.count(".") == 2, token.stderr
    refused = client.run("exporter", "migrate")
    assert refused.returncode != 0


async def test_with_all_of_a_worker_it_migrates(
    install: Install, needed: dict[str, set[str]], empty_settings: Settings
) -> None:
    url = empty_settings.database_url.get_secret_value()
    worker = install(needed[""] | needed["worker"])
    done = await asyncio.to_thread(worker.run, "exporter", "migrate", env={"EXPORTER_DATABASE_URL": url})
    assert done.returncode == 0, done.stderr
    connection = await asyncpg.connect(url)
    assert missing(await connection.fetchval("SELECT version_num FROM alembic_version")) == []
    await connection.close()
