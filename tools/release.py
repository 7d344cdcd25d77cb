"""Prepares a release: ``make release VERSION=0.2.0``.

First it checks that the working tree is clean, that the version is above the present one, and that the
changelog has unreleased entries. Otherwise it stops without a change. Then it writes the version into every
file that contains it, moves the unreleased entries of the changelog to the version, generates the documents
again, and builds both wheels and, if podman or docker works, the image. It does not commit, tag or publish.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version

from dev.container_engine import works as works_here

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PROJECTS = (ROOT, ROOT / "streaming_exporter")
"""The folders with a ``pyproject.toml``: the service and the client library."""

UNRELEASED = "## Unreleased\n"

_PLACES = {
    "pyproject.toml": (r'(?m)^(version = ")[^"]+(")', r"(streaming-exporter\[http,kafka\]==)[^\"]+()"),
    "streaming_exporter/pyproject.toml": (r'(?m)^(version = ")[^"]+(")',),
    "deploy/kubernetes/base/kustomization.yaml": (r"(newTag: \"?)[\w.+-]+()",),
    "deploy/helm/Chart.yaml": (r"(?m)^(version: \")[^\"]+(\")", r"(?m)^(appVersion: \")[^\"]+(\")"),
    "clients/typescript/package.json": (r'(?m)^(  "version": ")[^"]+(")',),
    "clients/typescript/package-lock.json": (
        r'(?m)^(  "version": ")[^"]+(")',
        r'(?s)("packages": {\s+"": {\s+"name": "[^"]+",\s+"version": ")[^"]+(")',
    ),
    "examples/node/package-lock.json": (
        r'(?s)("../../clients/typescript": {\s+"name": "[^"]+",\s+"version": ")[^"]+(")',
    ),
}
"""The files that contain the version, each with a pattern: one group before the version, one after it."""


class ReleaseError(Exception):
    """A reason why the release cannot be prepared, and what to do about it."""


def current_version() -> Version:
    """Return the present version of the service."""
    return Version(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def next_version(text: str, current: Version) -> Version:
    """Parse the version of the release.

    Raises:
        ReleaseError: it is not a version, or not above ``current``.
    """
    try:
        version = Version(text)
    except InvalidVersion as error:
        raise ReleaseError(f"{text!r} is not a version; allowed: a version such as 0.2.0") from error
    if version <= current:
        raise ReleaseError(f"{version} is not above the present version {current}; choose a higher one")
    return version


def npm_version(version: Version) -> str:
    """Return the version as npm writes it: ``1.2.0-dev.3`` for ``1.2.0.dev3``."""
    stage = version.pre or (("dev", version.dev) if version.dev is not None else None)
    return version.base_version + (f"-{stage[0]}.{stage[1]}" if stage else "")


def with_version(path: str, text: str, version: Version) -> str:
    """Return ``text``, the content of the file at ``path``, with ``version`` in place of the present version.

    Raises:
        ReleaseError: the file does not hold the version where it is expected.
    """
    written = npm_version(version) if path.endswith(".json") else version
    for pattern in _PLACES[path]:
        text, count = re.subn(pattern, rf"\g<1>{written}\g<2>", text)
        if count != 1:
            raise ReleaseError(f"{path}: expected the version once, found it {count} times")
    return text


def cut_changelog(text: str, version: Version, day: date) -> str:
    """Return the changelog with its unreleased entries moved to a part for ``version``.

    Raises:
        ReleaseError: there is no unreleased entry, or the version is in the changelog already.
    """
    if re.search(rf"(?m)^## {re.escape(str(version))}\b", text):
        raise ReleaseError(f"CHANGELOG.md has a part for {version} already; choose a higher version")
    head, found, rest = text.partition(UNRELEASED)
    entries = rest.partition("\n## ")[0]
    if not found or "\n- " not in f"\n{entries}":
        raise ReleaseError("CHANGELOG.md has no entry under Unreleased; write what the release changes")
    return f"{head}{UNRELEASED}\n## {version} ({day.isoformat()})\n{rest}"


def notes(text: str, version: str) -> str:
    """Return the entries of one version from the changelog, without its heading.

    Raises:
        ReleaseError: the changelog has no part for the version.
    """
    found = re.search(rf"(?ms)^## {re.escape(version)}(?=\s)[^\n]*\n(.*?)(?=^## |\Z)", text)
    if found is None:
        versions = ", ".join(re.findall(r"(?m)^## (\S+)", text))
        raise ReleaseError(f"CHANGELOG.md has no part for {version}; it has {versions}")
    return found[1].strip() + "\n"


def require_clean_tree() -> None:
    """Raise :class:`ReleaseError` if the working tree differs from the last commit."""
    changed = _output("git", "status", "--porcelain")
    if changed:
        raise ReleaseError(f"the working tree has changes; commit or remove them first:\n{changed}")


def build_wheels() -> list[Path]:
    """Build the wheels of both distributions into ``dist/``; returns their paths."""
    shutil.rmtree(DIST, ignore_errors=True)
    for project in PROJECTS:
        _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(DIST), cwd=project)
    return sorted(DIST.glob("*.whl"))


def build_image(version: Version, works: Callable[[str], bool] = works_here) -> str | None:
    """Build the image with podman or docker; returns its name, or ``None`` where neither works."""
    program = next(filter(works, ("podman", "docker")), None)
    if program is None:
        return None
    name = f"streaming-exporter:{version}"
    _run(program, "build", "--tag", name, ".")
    return name


def main(arguments: list[str] | None = None) -> int:
    """Prepare the release; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--notes", action="store_true", help="only print the entries of this version")
    given = parser.parse_args(arguments)
    try:
        if given.notes:
            print(notes((ROOT / "CHANGELOG.md").read_text("utf-8"), given.version), end="")
            return 0
        require_clean_tree()
        version = next_version(given.version, current_version())
        changelog = ROOT / "CHANGELOG.md"
        changed = {changelog: cut_changelog(changelog.read_text("utf-8"), version, datetime.now(UTC).date())}
        for name in _PLACES:
            changed[ROOT / name] = with_version(name, (ROOT / name).read_text("utf-8"), version)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    for path, text in changed.items():
        path.write_text(text, "utf-8")
    # The generated documents hold the version of what is installed, and the rendered chart that of the image.
    _run("make", "setup", "docs", "chart")
    wheels = build_wheels()
    image = build_image(version)
    for wheel in wheels:
        print(f"release: built {wheel.relative_to(ROOT)}")
    print(
        f"release: built the image {image}"
        if image
        else "release: NO IMAGE: neither podman nor docker works here"
    )
    print(
        f"release: next, run make check, commit, tag v{version}, and run make previous for the next version"
    )
    return 0


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.rstrip()


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    sys.exit(main())
