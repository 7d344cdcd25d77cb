"""The wheel of the client library: its import names and requirements, in an empty environment."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import ensure_topics
from tests.documents import BLOCKS
from tests.installations import (
    ROOT,
    Installation,
    build_wheel,
    files_of,
    requirements_of,
    with_their_requirements,
)
from tests.topics import events_on

LIBRARY = ROOT / "streaming_exporter"
MODULES = {f"streaming_exporter.{path.stem}" for path in LIBRARY.glob("*.py")} - {
    "streaming_exporter.__init__"
} | {"streaming_exporter.outbox", "streaming_exporter.outbox.__main__", "streaming_exporter.outbox.relay"}
"""Without the modules of the outbox for SQLAlchemy and Django, which need them."""
NEEDING_KAFKA = {f"streaming_exporter.{name}" for name in ("kafka_admin", "kafka_connection", "oauth")}

LOOK_FOR = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        print(name)
"""
"""A program that prints which of these modules cannot be imported."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the client library."""
    return build_wheel(LIBRARY, tmp_path_factory.mktemp("dist"))


def import_all(modules: set[str]) -> str:
    """Return a program that imports these modules."""
    return "\n".join(f"import {module}" for module in sorted(modules))


def test_it_contains_the_modules_and_py_typed(wheel: Path) -> None:
    modules = {f"streaming_exporter/{path.relative_to(LIBRARY)}" for path in LIBRARY.rglob("*.py")}
    assert files_of(wheel) == modules | {"streaming_exporter/py.typed"}


def test_it_needs_pydantic_and_each_extra_adds_one_package(wheel: Path) -> None:
    assert requirements_of(wheel) == {
        "": {"pydantic"},
        "kafka": {"aiokafka"},
        "http": {"httpx2"},
        "sqlalchemy": {"sqlalchemy[asyncio]"},
        "django": {"django"},
    }


def test_with_pydantic_alone_every_module_but_those_of_kafka_can_be_imported(
    tmp_path: Path, wheel: Path
) -> None:
    """It brings one import name into the empty environment."""
    client = Installation(tmp_path / "environment", wheel)
    assert client.import_names() == {"streaming_exporter"}
    client.offer(with_their_requirements({"pydantic"}))
    done = client.run("python", "-c", import_all(MODULES - NEEDING_KAFKA))
    assert done.returncode == 0, done.stderr
    missing = ["aiokafka", "httpx2", "pydantic_settings", "stream_app", "producers", "api", "dev"]
    looked_for = client.run("python", "-c", LOOK_FOR, *missing)
    assert looked_for.stdout.split() == missing, looked_for.stderr
    for part, extra in (
        ("from streaming_exporter.publisher import Publisher; Publisher(KafkaSettings())", "kafka"),
        ("from streaming_exporter import ExportClient; ExportClient('http://127.0.0.1', 't')", "http"),
    ):
        program = f"from streaming_exporter.kafka_settings import KafkaSettings\n{part}"
        assert f"streaming-exporter[{extra}]" in client.run("python", "-c", program).stderr


@pytest.mark.parametrize(
    ("extra", "beside", "modules"),
    [
        ("sqlalchemy", {"aiokafka", "asyncpg"}, {"sqlalchemy", "sqlalchemy_store", "relay"}),
        ("django", {"aiokafka"}, {"django.apps", "relay"}),
    ],
)
def test_with_its_extra_and_a_driver_the_outbox_can_be_imported(
    extra: str, beside: set[str], modules: set[str], tmp_path: Path, wheel: Path
) -> None:
    """What an extra leaves out shows only in the environment of another team."""
    client = Installation(tmp_path / "environment", wheel)
    needs = requirements_of(wheel)
    client.offer(with_their_requirements(needs[""] | needs[extra] | beside))
    program = import_all({f"streaming_exporter.outbox.{module}" for module in modules})
    if extra == "sqlalchemy":
        program += "\nfrom sqlalchemy.ext.asyncio import create_async_engine"
        program += "\ncreate_async_engine('postgresql+asyncpg://127.0.0.1/shop')"
    done = client.run("python", "-c", program)
    assert done.returncode == 0, done.stderr


async def test_the_example_of_its_readme_publishes_a_request(
    tmp_path: Path, wheel: Path, stack: Stack, settings: Settings
) -> None:
    client = Installation(tmp_path / "environment", wheel)
    client.offer(with_their_requirements({"aiokafka", "pydantic"}))
    (example,) = (block for block in BLOCKS if block.document == LIBRARY / "README.md")
    await ensure_topics(settings)
    done = await asyncio.to_thread(client.run, "python", "-c", example.text, env=stack.settings())
    assert done.returncode == 0, done.stderr
    assert UUID(done.stdout.strip()) in {event.job_id for event in await events_on(settings, Topic.REQUESTS)}
