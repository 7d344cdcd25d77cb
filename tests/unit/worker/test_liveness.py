"""A probe checks the age of the ready file, so that a hanging worker is not ready."""

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_app.__main__ import cli
from stream_app.worker.liveness import FRESH_SECONDS, is_ready, write_ready_file


def test_a_worker_is_ready_while_the_file_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    assert not is_ready(file)
    write_ready_file(file, True)
    assert is_ready(file)
    old = time.time() - FRESH_SECONDS - 1
    os.utime(file, (old, old))
    assert not is_ready(file)
    write_ready_file(file, True)
    assert is_ready(file)
    write_ready_file(file, False)
    write_ready_file(file, False)
    assert not file.exists()
    assert not is_ready(None)


def test_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ready"
    monkeypatch.setenv("EXPORTER_READY_FILE", str(file))
    probe = CliRunner()
    assert probe.invoke(cli, ["doctor", "--ready"]).exit_code == 1
    file.touch()
    assert probe.invoke(cli, ["doctor", "--ready"]).exit_code == 0
