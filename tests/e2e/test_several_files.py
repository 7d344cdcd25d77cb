"""Exports of several files by the commands, on the whole system."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from typer.testing import CliRunner, Result

from dev.stack import ROOT
from producers.__main__ import cli
from tests.e2e.conftest import System


def exporter(system: System, *arguments: str) -> Result:
    """Run a command of `exporter` in this process."""
    done = CliRunner().invoke(cli, [*arguments, "--user-id", "customer-1"], env=environment(system))
    assert done.exit_code == 0, done.output
    return done


def environment(system: System) -> dict[str, str]:
    return {**system.stack.environment(), "EXPORTER_PUBLIC_URL": system.api.url}


def test_a_request_for_several_files_ends_in_a_folder_with_all_of_them(
    system: System, tmp_path: Path
) -> None:
    job = str(uuid4())
    wanted = ["--export-type", "orders", "--format", "csv", "--user-id", "customer-1"]
    request = ["request", *wanted, "--split-rows", "30", "--job-id", job, "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "producers", *request],
        env=environment(system),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tmp_path}: 3 files, 72 rows" in done.stderr
    files = sorted(tmp_path.iterdir())
    assert [path.name[-10:] for path in files] == ["-00001.csv", "-00002.csv", "-00003.csv"]
    tables = [list(csv.reader(io.StringIO(path.read_text(), newline=""))) for path in files]
    assert [len(table) - 1 for table in tables] == [30, 30, 12]
    assert len({tuple(table[0]) for table in tables}) == 1
    files[1].unlink()
    again = exporter(system, "download", job, "--output", str(tmp_path))
    assert again.stdout.split() == [str(path) for path in files]
    files[1].write_text("changed")
    numbered = exporter(system, "download", job, "--output", str(tmp_path))
    beside = files[1].with_name(f"{files[1].stem} (2).csv")
    assert numbered.stdout.splitlines() == [str(path) for path in (files[0], beside, files[2])]
    assert files[1].read_text() == "changed"
    assert len(list(csv.reader(io.StringIO(beside.read_text(), newline="")))) == 31
    status = json.loads(exporter(system, "status", job).stdout)
    assert (status["file_count"], status["split"]) == (3, {"rows": 30})
