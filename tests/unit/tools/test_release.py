"""What a release changes, and what it refuses."""

import subprocess
from datetime import date

import pytest
from packaging.version import Version

from tools import release
from tools.compatibility import RELEASED, load
from tools.release import (
    ROOT,
    UNRELEASED,
    ReleaseError,
    current_version,
    cut_changelog,
    next_version,
    npm_version,
    with_version,
)

NEXT = Version("7.8.9")


@pytest.mark.parametrize("path", release._PLACES)
def test_each_file_gets_the_version_and_nothing_else_changes(path: str) -> None:
    before = (ROOT / path).read_text("utf-8")
    after = with_version(path, before, NEXT)
    assert after.count("7.8.9") == len(release._PLACES[path])
    present = current_version()
    assert after.replace("7.8.9", npm_version(present) if path.endswith(".json") else str(present)) == before


def test_no_other_file_has_the_version() -> None:
    """A file that a release forgets shows only after it, so each one with the present version is listed."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    present = current_version()
    words = (str(present), npm_version(present))
    found = {
        name
        for name in files.splitlines()
        if not name.startswith(("docs/", "tests/")) and name not in ("CHANGELOG.md", "README.md")
        if any(word in (ROOT / name).read_text("utf-8", errors="replace") for word in words)
    }
    if present.is_prerelease:  # other things can have the number of a release, too
        assert found <= release._PLACES.keys()


def test_changes_are_compared_with_the_newest_release() -> None:
    """What only the newest release has could go away without a word if an earlier one was kept."""
    unreleased, *parts = (ROOT / "CHANGELOG.md").read_text("utf-8").partition(UNRELEASED)[2].split("\n## ")
    versions = [part.split()[0] for part in parts]
    # Between `make release` and `make previous` nothing is unreleased, and the version before is kept.
    allowed = versions[:1] if unreleased.strip() else versions[:2]
    kept = {path.name.split("-")[1] for path in (ROOT / "tests/chaos/previous").glob("*.whl")}
    (kept_version,) = kept | {str(document["info"]["version"]) for document in load(RELEASED)}
    assert kept_version in allowed, "run `make previous` in the commit of the newest release"


@pytest.mark.parametrize(
    ("version", "written"), [("0.2.0", "0.2.0"), ("0.2.0.dev0", "0.2.0-dev.0"), ("1.0.0rc2", "1.0.0-rc.2")]
)
def test_npm_has_its_own_way_to_write_versions(version: str, written: str) -> None:
    assert npm_version(Version(version)) == written


def test_a_file_without_the_version_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"pyproject.toml: expected the version once, found it 0 times"):
        with_version("streaming_exporter/pyproject.toml", "[project]\n", NEXT)


def test_unreleased_entries_belong_to_the_version_and_a_new_empty_part_stands_above() -> None:
    text = "# Changelog\n\n## Unreleased\n\n- One.\n\n## 0.1.0 (2026-01-01)\n\n- Zero.\n"
    assert cut_changelog(text, NEXT, date(2027, 2, 3)) == (
        "# Changelog\n\n## Unreleased\n\n## 7.8.9 (2027-02-03)\n\n- One.\n\n"
        "## 0.1.0 (2026-01-01)\n\n- Zero.\n"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# Changelog\n\n## Unreleased\n\n## 0.1.0\n\n- Zero.\n", "no entry under Unreleased"),
        ("# Changelog\n\n## 0.1.0\n\n- Zero.\n", "no entry under Unreleased"),
        ("# Changelog\n\n## Unreleased\n\n- One.\n\n## 7.8.9\n\n- Zero.\n", "a part for 7.8.9 already"),
    ],
)
def test_a_changelog_without_new_entries_or_with_the_version_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        cut_changelog(text, NEXT, date(2027, 2, 3))


def test_the_changelog_of_this_checkout_can_be_cut() -> None:
    """Also right after a release, when nothing is unreleased: then with the next entry."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8").replace(UNRELEASED, f"{UNRELEASED}\n- One.\n", 1)
    assert "## 7.8.9 (2027-02-03)\n\n- One.\n" in cut_changelog(text, NEXT, date(2027, 2, 3))


@pytest.mark.parametrize(
    ("text", "reason"), [("next", "not a version"), ("0.0.1", "not above"), ("1", "not above")]
)
def test_an_invalid_version_or_one_below_the_present_version_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        next_version(text, Version("1.0"))
    assert next_version("1.0.1", Version("1.0")) == Version("1.0.1")


def test_nothing_is_changed_if_the_tree_has_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release, "_output", lambda *command: " M README.md")
    monkeypatch.setattr(release, "_run", lambda *command, cwd=ROOT: pytest.fail(f"ran {command}"))
    assert release.main(["99.0"]) == 1
    assert " M README.md" in capsys.readouterr().err


def test_no_image_is_built_without_a_working_program() -> None:
    assert release.build_image(NEXT, works=lambda program: False) is None


def test_the_image_carries_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(release, "_run", lambda *command, cwd=ROOT: ran.append(command))
    assert release.build_image(NEXT, works=lambda program: program == "docker") == "streaming-exporter:7.8.9"
    assert ran == [("docker", "build", "--tag", "streaming-exporter:7.8.9", ".")]


def test_notes_are_the_entries_of_one_version() -> None:
    parts = (
        "# Changelog",
        "## Unreleased",
        "- new",
        "## 0.2.0.1 (x)",
        "- a",
        "## 0.2.0 (2026-01-02)",
        "- b\n- c",
    )
    text = "\n\n".join(parts) + "\n"
    assert release.notes(text, "Unreleased") == "- new\n"
    assert release.notes(text, "0.2.0") == "- b\n- c\n"
    with pytest.raises(release.ReleaseError, match=r"no part for 9\.9; it has Unreleased, 0\.2\.0\.1"):
        release.notes(text, "9.9")


def test_the_changelog_has_notes_of_the_first_version() -> None:
    assert release.notes((release.ROOT / "CHANGELOG.md").read_text("utf-8"), "0.1.0").startswith("- ")
