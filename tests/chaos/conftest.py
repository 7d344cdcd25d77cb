"""Stacks to be broken: each module has its own, so that nothing else suffers from it."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres import SOURCE
from local.stack import ROOT, Stack
from tests.chaos.items import DATASETS, TABLES, Source
from tests.e2e.tables import psql


def prepare(stack: Stack) -> dict[str, str]:
    """Make the tables; returns the settings that workers need to export them."""
    psql(stack, TABLES)
    datasets = stack.run_dir / "datasets.toml"
    datasets.write_text(DATASETS)
    return {"EXPORTER_DATASETS_FILE": str(datasets)}


@pytest.fixture(autouse=True, scope="package")
def _quiet() -> None:
    """Clients of a broker that is away have nothing to tell that a test would not."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Kafka, PostgreSQL and S3 with the service's tables, and nobody who works."""
    (ROOT / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=ROOT / ".local"))
    with Stack(folder, ledger_rows=None, keep_logs=False) as running:
        yield running


@pytest.fixture(scope="module")
def datasets(stack: Stack) -> dict[str, str]:
    """The settings that make the tables of this folder exportable."""
    return prepare(stack)


@pytest.fixture(scope="module")
def source(stack: Stack) -> Source:
    """What the rows should be."""
    return Source(stack.postgres.admin_url(SOURCE))
