"""Imports: commands import little, so that they are quick, and producers import no worker."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROCESSOR_SECONDS = 0.5
RUNS = 8

OF_THE_SERVICE = frozenset({"alembic", "asyncpg", "fastapi", "faust", "minio", "sqlalchemy", "starlette"})
OF_THE_COMMAND = frozenset({"httpx2", "joserfc", "rich", "typer"})


def run(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("EXPORTER_")}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def imported(code: str) -> set[str]:
    """Return the top-level packages that are imported after ``code`` has run."""
    return set(
        run("-c", f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})").split()
    )


@dataclass(frozen=True)
class Started:
    """What the command of a process has done until it read the settings.

    Attributes:
        modules: the modules that are imported then, also by tracing that is off and by the check of tables.
        full_collections: how often it has collected garbage of all ages.
    """

    modules: frozenset[str]
    full_collections: int

    @property
    def packages(self) -> set[str]:
        return {name.partition(".")[0] for name in self.modules}


@cache
def _started(package: str, *arguments: str) -> Started:
    """Run a process of the service that ends because a setting is wrong: after its imports."""
    program = f"""
import contextlib, gc, json, os, sys

full = []
gc.callbacks.append(lambda phase, about: full.append(phase) if about["generation"] == 2 else None)
from {package}.__main__ import cli

sys.argv[1:] = {list(arguments)}
os.environ["EXPORTER_DATABASE_URL"] = "no url"
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(None):
    cli()
import stream_app.observability.telemetry
from stream_app.db import table_check

with stream_app.observability.telemetry.exporting_spans("s", "i"):
    assert table_check._missing("0001")
print(json.dumps([sorted(sys.modules), len(full)]))
"""
    modules, full = json.loads(run("-c", program))
    return Started(frozenset(modules), full)


def processor_seconds(*arguments: str) -> float:
    """Return the processor time of a program, which depends little on the load of the machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick() -> None:
    """At least one of several runs is quick: the first one can compile, and others can be disturbed."""
    assert any(processor_seconds("-m", "producers", "--help") < PROCESSOR_SECONDS for _ in range(RUNS))


def test_help_imports_little() -> None:
    code = (
        "import contextlib, io\nfrom producers.__main__ import cli\nimport sys\nsys.argv[1:] = ['--help']\n"
    )
    code += "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): cli()"
    found = imported(code)
    assert "typer" in found
    assert not found & (OF_THE_SERVICE | {"aiokafka", "asyncio", "httpx2", "pydantic", "rich"})


@pytest.mark.parametrize("module", ["producers", "streaming_exporter.publisher", "streaming_exporter.events"])
def test_a_program_that_publishes_events_imports_no_service(module: str) -> None:
    found = imported(f"import {module}")
    assert module.partition(".")[0] in found
    assert not found & (OF_THE_SERVICE | OF_THE_COMMAND)


def test_publishing_needs_the_client_of_kafka_and_nothing_more() -> None:
    found = imported("import streaming_exporter.publisher, streaming_exporter.kafka_connection, aiokafka")
    assert "aiokafka" in found
    assert not found & (OF_THE_SERVICE | OF_THE_COMMAND)


def test_the_api_imports_no_worker_and_nothing_that_writes_files() -> None:
    found = _started("api").packages
    assert "fastapi" in found
    assert not found & {"alembic", "faust", "mode", "openpyxl", "PIL", "pyarrow", "reportlab"}


def test_a_worker_starts_without_the_libraries_of_migrations_and_of_files() -> None:
    found = _started("stream_app", "worker").packages
    assert "faust" in found
    assert not found & {"alembic", "mako", "openpyxl", "PIL", "pyarrow", "reportlab"}


@pytest.mark.parametrize(
    ("role", "heavy"),
    # FastAPI itself imports the API package of OpenTelemetry, without the SDK.
    [(("stream_app", "worker"), "opentelemetry"), (("api",), ("opentelemetry.sdk", "google.protobuf"))],
)
def test_tracing_that_is_off_imports_nothing_of_it(role: tuple[str, ...], heavy: tuple[str, ...]) -> None:
    assert not {name for name in _started(*role).modules if name.startswith(heavy)}


@pytest.mark.parametrize("role", [("stream_app", "worker"), ("api",)])
def test_no_garbage_is_collected_while_a_process_imports(role: tuple[str, ...]) -> None:
    """Full collections would take a fifth of the time of a start."""
    assert _started(*role).full_collections == 0
