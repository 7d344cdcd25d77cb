"""What is left of a download after its end."""

from pathlib import Path

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
