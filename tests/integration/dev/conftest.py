"""A stack that these tests interrupt."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stack import ROOT, Stack


@pytest.fixture(scope="session")
def fragile() -> Iterator[Stack]:
    """A separate stack of services with the sample."""
    (ROOT / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=ROOT / ".local"))
    with Stack(folder, ledger_rows=500, keep_logs=False) as running:
        yield running
    assert not folder.exists()
