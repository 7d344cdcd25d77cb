"""``make test`` installs the system packages that its tests need, or prints their names where it cannot."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "requirements/system.sh"
NEEDED = ("chromium", "npm", "sshd", "pgbouncer", "mvn")


class Machine:
    """A copy of the script beside a virtual environment, and a folder with all commands of the machine."""

    def __init__(self, folder: Path) -> None:
        self.commands = folder / "bin"
        self.ready = folder / ".venv/.ready"
        self.calls = folder / "calls.txt"
        self.script = folder / "requirements/system.sh"
        for path in (self.commands, self.ready.parent, self.script.parent):
            path.mkdir()
        shutil.copy(SCRIPT, self.script)
        self.ready.touch()
        for name in ("sh", "dirname", "rm"):
            (self.commands / name).symlink_to(str(shutil.which(name)))

    def add(self, name: str, line: str = "exit 0") -> None:
        """Add a command that runs one line of shell."""
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        path.chmod(0o755)

    def run(self) -> str:
        """Run the script; return what it prints."""
        done = subprocess.run(
            [str(self.script)], env={"PATH": str(self.commands)}, capture_output=True, text=True, check=True
        )
        assert done.stdout == ""
        return done.stderr

    @property
    def installed(self) -> list[str]:
        """The arguments of the package manager's calls, one item a call."""
        return self.calls.read_text("utf-8").splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add("id", "echo 0")
    made.add("apt-get", f'echo "$@" >> {made.calls}')
    return made


def test_root_installs_what_is_missing(machine: Machine) -> None:
    machine.add("mvn")
    assert "installing system packages" in machine.run()
    update, install = machine.installed
    assert update.startswith("update ")
    assert {"chromium", "nodejs", "npm"} <= set(install.split())
    assert "maven" not in install.split()
    assert not machine.ready.exists(), "the packages of Node.js are installed by a new setup"


def test_where_nothing_is_missing_nothing_happens(machine: Machine) -> None:
    for name in NEEDED:
        machine.add(name)
    assert machine.run() == ""
    assert machine.installed == []
    assert machine.ready.exists()


@pytest.mark.parametrize(
    "change", [("id", "echo 1000"), ("apt-get", "exit 100")], ids=["no root", "no mirror"]
)
def test_elsewhere_the_packages_are_named_and_the_tests_go_on(
    machine: Machine, change: tuple[str, str]
) -> None:
    machine.add(*change)
    assert "some tests will fail without these packages" in machine.run()
    assert machine.installed == []
    assert machine.ready.exists()
