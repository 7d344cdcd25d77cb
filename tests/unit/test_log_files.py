"""A line that is being written is not read yet."""

from pathlib import Path

import pytest

from tests.log_files import complete_lines, logged


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b'{"a": 1}', []),
        (b'{"a": 1}\n', ['{"a": 1}']),
        (b'{"a": 1}\n{"a": "\xc3', ['{"a": 1}']),
        (b'Traceback\n{"a": 1}\n', ["Traceback", '{"a": 1}']),
    ],
)
def test_only_complete_lines_are_read(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    file = tmp_path / "log"
    file.write_bytes(content)
    assert complete_lines(file) == lines
    assert logged(file) == [{"a": 1} for line in lines if line.startswith("{")]


def test_a_file_that_does_not_exist_yet_has_no_lines(tmp_path: Path) -> None:
    assert logged(tmp_path / "log") == []
