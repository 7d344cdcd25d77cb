"""A stack that these tests interrupt."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.stack import ROOT, Stack
from tests.endings import after_last_test


@pytest.fixture(scope="session")
def fragile(pytestconfig: pytest.Config) -> Stack:
    """A separate stack of services with the sample, which stops after the last test of this folder."""
    return after_last_test(pytestconfig, "tests/integration/dev/").enter_context(_separate())


@contextmanager
def _separate() -> Iterator[Stack]:
    (ROOT / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=ROOT / ".local"))
    with Stack(folder, ledger_rows=500, keep_logs=False) as running:
        yield running
    assert not folder.exists()
