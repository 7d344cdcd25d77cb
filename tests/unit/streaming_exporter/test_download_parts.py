"""What is left of a download after its end."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streaming_exporter import file_names
from streaming_exporter.download_parts import Part


def test_a_part_that_was_closed_and_renamed_is_left_alone(tmp_path: Path) -> None:
    """Windows renames no open file, so a finished part is closed before it gets its name."""
    with Part(tmp_path / "ledger.csv.part") as part:
        part.write(b"a,b\n")
        part._file.close()
        part.path.rename(tmp_path / "ledger.csv")
    assert (tmp_path / "ledger.csv").read_bytes() == b"a,b\n"


def test_only_a_part_with_bytes_is_kept(tmp_path: Path) -> None:
    for content in (b"", b"a,b\n"):
        with Part(tmp_path / "ledger.csv.part") as part:
            part.write(content)
        assert part.path.exists() == bool(content)


def test_a_part_that_another_download_removes_while_it_gets_its_name_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, target = tmp_path / "ledger.csv.part", tmp_path / "ledger.csv"
    part.write_bytes(b"a,b\n")
    link = os.link

    def link_then_remove(source: Path, name: Path) -> None:
        link(source, name)
        with Part(source):  # another download: the part has two names, so it begins with a new one
            pass

    monkeypatch.setattr(os, "link", link_then_remove)
    assert file_names.save(part, target) == target
    assert target.read_bytes() == b"a,b\n"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("names", [0, 1])
def test_a_part_is_continued_where_the_file_system_counts_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int
) -> None:
    path = tmp_path / "ledger.csv.part"
    path.write_bytes(b"a,b\n")
    fstat = os.fstat

    def counting(number: int) -> Any:
        found = fstat(number)
        facts = ("st_dev", "st_ino", "st_size", "st_mode")
        return SimpleNamespace(**{name: getattr(found, name) for name in facts}, st_nlink=names)

    monkeypatch.setattr(os, "fstat", counting)
    with Part(path) as part:
        assert (part.path, part.size) == (path, 4)


def test_a_part_that_another_download_removes_before_this_one_does_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / "ledger.csv.part", tmp_path / "ledger.csv"
    path.write_bytes(b"a,b\n")
    os.link(path, target)
    unlink = Path.unlink

    def removed_twice(of: Path, **options: Any) -> None:
        unlink(of, **options)
        unlink(of, **options)

    monkeypatch.setattr(Path, "unlink", removed_twice)
    with Part(path) as part:
        assert (part.path, part.size) == (path, 0)
    assert list(tmp_path.iterdir()) == [target]
