"""``make test`` installs the system packages that its tests need, or prints their names where it cannot."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "requirements/system.sh"
NEEDED = ("chromium-headless-shell", "npm", "sshd", "pgbouncer", "mvn")


class Machine:
    """The script, and a folder with all commands of the machine."""

    def __init__(self, folder: Path) -> None:
        self.commands = folder / "bin"
        self.calls = folder / "calls.txt"
        self.commands.mkdir()
        (self.commands / "sh").symlink_to(str(shutil.which("sh")))
        self.environment = {
            "PATH": str(self.commands), "SYSTEM_COMMANDS": str(folder), "TMPDIR": str(folder),
        }  # fmt: skip

    def add(self, name: str, line: str = "exit 0") -> None:
        """Add a command that runs one line of shell."""
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        path.chmod(0o755)

    def run(self) -> str:
        """Run the script; return what it prints."""
        done = subprocess.run([SCRIPT], env=self.environment, capture_output=True, text=True, check=True)
        assert done.stdout == ""
        return done.stderr

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of the package manager's calls, without the options."""
        lines = self.calls.read_text("utf-8").splitlines() if self.calls.exists() else []
        return [
            [word for word in line.split() if not word.startswith("-") and "=" not in word] for line in lines
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add("id", "echo 0")
    made.add("apt-get", f'echo "$@" >> {made.calls}')
    return made


def test_root_installs_what_is_missing(machine: Machine) -> None:
    machine.add("mvn")
    assert machine.run() == (
        "setup: installing system packages for tests: "
        "chromium-headless-shell fonts-dejavu-core nodejs npm openssh-server pgbouncer\n"
    )
    assert machine.asked == [
        ["update"],
        ["install", "chromium-headless-shell", "fonts-dejavu-core"],
        ["install", "nodejs", "npm"],
        ["install", "openssh-server"],
        ["install", "pgbouncer"],
    ]


def test_where_nothing_is_missing_nothing_happens(machine: Machine) -> None:
    for name in NEEDED:
        machine.add(name)
    assert machine.run() == ""
    assert machine.asked == []


def test_a_package_that_cannot_be_had_keeps_no_other_from_being_installed(machine: Machine) -> None:
    """Ubuntu has Chromium as a snap only. A machine without a network has the lists of an earlier day."""
    machine.add("apt-get", f'echo "$@" >> {machine.calls}; case "$*" in update*|*chromium*) exit 100;; esac')
    *_, last = machine.run().splitlines()
    assert last.endswith("(names of Debian): chromium fonts-dejavu-core")
    assert ["install", "chromium", "fonts-dejavu-core"] in machine.asked
    assert ["install", "nodejs", "npm"] in machine.asked


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("exit 0", [["update"], ["install", "chromium-headless-shell", "fonts-dejavu-core"]]),
        ("exit 100", []),
    ],
)
def test_a_browser_with_windows_is_enough_where_the_other_is_not_known(
    machine: Machine, line: str, asked: list[list[str]]
) -> None:
    """Where the other is known but cannot be installed, no message says that tests will fail."""
    for name in NEEDED[1:]:
        machine.add(name)
    machine.add("chromium")
    machine.add("apt-cache", line)
    machine.add("apt-get", f'echo "$@" >> {machine.calls}; exit 100')
    assert "some tests will fail" not in machine.run()
    assert machine.asked == asked


def test_who_is_not_root_gets_the_names_and_the_tests_go_on(machine: Machine) -> None:
    machine.add("id", "echo 1000")
    (line,) = machine.run().splitlines()
    assert line.startswith("setup: some tests will fail without these packages")
    assert line.endswith(
        ": chromium-headless-shell fonts-dejavu-core nodejs npm openssh-server pgbouncer"
        " maven default-jdk-headless"
    )
    assert machine.asked == []


@pytest.mark.parametrize("target", ["test", "test-all"])
def test_packages_are_installed_before_what_needs_them(target: str) -> None:
    """npm is one of them, and brings what the tests of the page need."""
    command = ["make", "--dry-run", "--what-if=tests/node/package-lock.json", target]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    places = [printed.index(step) for step in ("requirements/system.sh", "npm ci", "-m pytest")]
    assert places == sorted(places)
