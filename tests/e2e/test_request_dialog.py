"""`exporter request` on a terminal asks for what it was not told; without a terminal it never asks."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.conftest import System

EXPORTER = Path(sys.executable).with_name("exporter")


def on_terminal(
    command: Sequence[str | Path], answers: Sequence[str], env: dict[str, str], folder: Path
) -> tuple[int, str, str]:
    """Run a command on a terminal and type ``answers``; return its code, its output, and what it showed."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=env, cwd=folder, text=True
    )
    os.close(theirs)
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the terminal of a process that has ended
            break
        shown += part
        if not part:
            break
    os.close(ours)
    output, _ = child.communicate()
    return child.returncode, output, shown.decode()


def variables(system: System) -> dict[str, str]:
    return {
        **os.environ,
        **system.stack.settings(),
        "EXPORTER_PUBLIC_URL": system.api.address,
        "COLUMNS": "120",
    }


def test_on_a_terminal_it_asks_shows_the_command_and_downloads(system: System, tmp_path: Path) -> None:
    answers = ["user-1", "nothing", "ledger", "csv", "colour=red", "kind", "id<=500", "", "y", "y"]
    code, output, shown = on_terminal([EXPORTER, "request"], answers, variables(system), tmp_path)
    assert code == 0, shown
    assert "There is no dataset nothing" in shown
    assert "There is no column colour" in shown
    assert "--filter 'kind'" in shown
    same = "exporter request --export-type ledger --format csv --user-id user-1 --filter 'id<=500'"
    assert same in " ".join(shown.split())
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".csv"
    job = system.ended(output.strip())
    assert (job["filters"], job["user_id"]) == ({"id": {"lte": "500"}}, "user-1")


def test_what_is_not_confirmed_is_not_requested(system: System, tmp_path: Path) -> None:
    command: list[str | Path] = [EXPORTER, "request", "--export-type", "ledger", "--user-id", "user-1"]
    code, output, shown = on_terminal(command, ["1", "", "n"], variables(system), tmp_path)
    assert (code, output) == (1, ""), shown


def test_without_a_terminal_or_with_json_it_never_asks(system: System, tmp_path: Path) -> None:
    done = subprocess.run(
        [EXPORTER, "request"], env=variables(system), input="user-1\n", capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "missing: --export-type, --format, --user-id" in done.stderr
    code, _, shown = on_terminal([EXPORTER, "request", "--json"], [], variables(system), tmp_path)
    assert code == 2
    assert "missing: --export-type" in shown
