"""Folders of killed runs are emptied by the next run, also if several begin together."""

import fcntl
from pathlib import Path

import pytest

from dev.folder import RunFolder, sweep


def _left(path: Path) -> Path:
    """Make the folder of a killed run."""
    (path / "logs").mkdir(parents=True)
    (path / "logs" / "kafka.log").touch()
    (path / "data").mkdir()
    return path


def test_logs_of_a_killed_run_stay_for_a_day_and_folders_in_use_stay(tmp_path: Path) -> None:
    left = _left(tmp_path / "left")
    used = RunFolder(tmp_path / "used")
    used.open()
    (used.path / "data").mkdir()
    sweep([left, used.path], keep=("logs",))
    assert [entry.name for entry in left.iterdir()] == ["logs"]
    assert [entry.name for entry in used.path.iterdir()] == ["data"]
    sweep([left])
    assert not left.exists()
    used.close(keep_logs=False)
    assert not used.path.exists()


def test_a_folder_that_another_run_has_removed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, other = _left(tmp_path / "left"), _left(tmp_path / "other")
    lock = fcntl.flock

    def late(handle: int, operation: int) -> None:
        """Lock the folder after another run has emptied it, removed it and released its lock."""
        monkeypatch.setattr(fcntl, "flock", lock)
        sweep([left])
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    sweep([left, other])
    assert not other.exists()
