"""Wheels of this checkout, built as for a release, and environments that hold nothing else."""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def build_wheel(project: Path, folder: Path) -> Path:
    """Write the wheel of ``project``, the folder of a ``pyproject.toml``, into ``folder``."""
    name, content = _built(project)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


@cache
def _built(project: Path) -> tuple[str, bytes]:
    """Build the wheel once; return its name and content."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
        (built,) = Path(folder).glob("*.whl")
        return built.name, built.read_bytes()


def files_of(wheel: Path) -> set[str]:
    """Return the paths of the files in the wheel, without its metadata and its shared data."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}


def requirements_of(wheel: Path) -> dict[str, set[str]]:
    """Return the packages that each extra of the wheel needs. The key ``""`` has those without an extra."""
    info = next(path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    package = PathDistribution(info)
    found: dict[str, set[str]] = {extra: set() for extra in package.metadata.get_all("Provides-Extra", [])}
    found[""] = set()
    for line in package.requires or ():
        requirement = Requirement(line)
        for extra, names in found.items():
            marker = requirement.marker
            if not extra if marker is None else extra and marker.evaluate({"extra": extra}):
                extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
                names.add(canonicalize_name(requirement.name) + extras)
    return found


def with_their_requirements(names: Iterable[str]) -> set[str]:
    """Return the packages, each with or without extras, and all their installed requirements."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            if (wanted.name, extra) in found:
                continue
            found.add((wanted.name, extra))
            needs = [Requirement(line) for line in distribution(wanted.name).requires or ()]
            waiting += [
                need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
            ]
    return {canonicalize_name(name) for name, _ in found}


class Installation:
    """A virtual environment that holds wheels of this checkout and the packages that :meth:`offer` adds."""

    def __init__(self, folder: Path, *wheels: Path) -> None:
        """Create the environment in ``folder`` and install the wheels, without their requirements."""
        self._folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (self._packages,) = folder.glob("lib/python*/site-packages")
        self._empty = self._content()
        uv = str(Path(sys.executable).with_name("uv"))
        install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps"]
        python = ["--python", str(folder / "bin" / "python")]
        subprocess.run([*install, *python, *map(str, wheels)], check=True)

    def import_names(self) -> set[str]:
        """The top-level names that can be imported and were not there in the empty environment."""
        added = {name for name in self._content() - self._empty if not name.endswith(".dist-info")}
        return {name.removesuffix(".py") for name in added}

    def _content(self) -> set[str]:
        return {path.name for path in self._packages.iterdir() if path.name != "__pycache__"}

    def offer(self, names: Iterable[str]) -> None:
        """Make packages of the environment that runs the tests importable here too."""
        for name in names:
            package = distribution(name)
            tops = {file.parts[0] for file in package.files or () if ".." not in file.parts}
            for top in tops - {"__pycache__", "bin"}:
                target = self._packages / top
                if not target.exists():
                    target.symlink_to(Path(str(package.locate_file(top))))

    def run(
        self, program: str, *arguments: str, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of its programs to its end, in a folder outside of the repository."""
        return subprocess.run(
            [self._folder / "bin" / program, *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], **(env or {})},
            capture_output=True,
            text=True,
        )

    def start(self, program: str, *arguments: str, env: dict[str, str], cwd: Path) -> "subprocess.Popen[str]":
        """Start one of its programs in ``cwd``, with its messages in ``stdout``."""
        return subprocess.Popen(
            [self._folder / "bin" / program, *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
