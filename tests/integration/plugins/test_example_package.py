"""The example package of plug-ins, built and installed beside the service, as another team does it."""

from pathlib import Path

import pytest

from tests.documents import BLOCKS, Block
from tests.installations import (
    ROOT,
    Installation,
    build_wheel,
    files_of,
    requirements_of,
    with_their_requirements,
)

EXAMPLE = ROOT / "examples" / "plugins"
RUN_TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the example."""
    return build_wheel(EXAMPLE, tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installation:
    """An environment with the service, the client library, the example, and what they and its tests need."""
    folder = tmp_path_factory.mktemp("plugins")
    service = build_wheel(ROOT, folder / "service")
    library = build_wheel(ROOT / "streaming_exporter", folder / "library")
    made = Installation(folder / "environment", service, library, wheel)
    needed = requirements_of(service)
    names = needed[""] | needed["worker"] | {"pytest"}
    made.offer(with_their_requirements(names) - {"streaming-exporter", "streaming-exporter-service"})
    return made


def test_the_package_has_one_import_name_and_needs_the_service(wheel: Path) -> None:
    assert {Path(name).parts[0] for name in files_of(wheel)} == {"exporter_example_plugins"}
    assert requirements_of(wheel)[""] == {"sqlalchemy", "streaming-exporter-service"}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.document.name == "plugins.md"], ids=str)
def test_the_documents_quote_the_package(block: Block) -> None:
    """Every line of a block is in one file of the package."""
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")]
    lines = {line for line in block.text.splitlines() if line}
    assert any(lines <= set(path.read_text("utf-8").splitlines()) for path in files)


@pytest.mark.slow
def test_its_own_tests_pass_with_the_conformance_suite(installation: Installation, source_dsn: str) -> None:
    done = installation.run(
        "python",
        *RUN_TESTS,
        str(EXAMPLE / "tests"),
        f"--rootdir={EXAMPLE}",
        "--exporter-database",
        source_dsn,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_database_the_suite_fails_and_says_what_it_needs(installation: Installation) -> None:
    done = installation.run(
        "python", *RUN_TESTS, str(EXAMPLE / "tests"), f"--rootdir={EXAMPLE}", "-k", "names"
    )
    assert done.returncode == 1
    assert "set --exporter-database to its URL" in done.stdout
