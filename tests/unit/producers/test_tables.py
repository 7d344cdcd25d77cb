"""Tables of the commands fit the terminal, and show no control characters."""

import sys

import pytest

from producers.tables import duration, print_table, table

ROWS = [("job", "user", "rows"), ("a" * 36, "ada\x1b[31m", "1,200"), ("b" * 36, "bob", "7")]


def test_columns_are_aligned() -> None:
    lines = table(ROWS, right=(2,))
    assert {len(line) for line in lines[1:]} == {len(lines[0])}
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("columns", "lines"), [(200, 3), (40, 4)])
def test_a_narrow_terminal_has_two_lines_for_each_row(
    columns: int, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(ROWS)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == lines
    assert max(map(len, shown)) <= columns


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s"), (48, "48 s"), (720, "12 min"), (12_600, "3.5 h"), (200_000, "2.3 days")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
