"""Framing in another process: the bytes, the counts, and every early end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.framing_process import end_idle, frame_in_process
from stream_app.exports.formats.json import JsonFormat
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import Options
from tests.integration.processes.awkward import Awkward
from tests.waiting import WITHIN, patient, until

COLUMNS = (Column("n", "integer", "int4", Kind.INTEGER),)
DOCUMENT = Document("things", COLUMNS, Options(), datetime(2026, 1, 31, tzinfo=UTC))
ROWS = [b"%d\n" % number * 5_000 for number in range(200)]


def run(*chunks: bytes, tally: Tally | None = None) -> bytes:
    return b"".join(frame_in_process(Awkward(), iter(chunks), DOCUMENT, tally or Tally()))


def children() -> list[psutil.Process]:
    """Return the processes that this one has started, without theirs: PostgreSQL has new ones."""
    return psutil.Process().children()


def framing() -> list[psutil.Process]:
    """Return the processes that frame or wait for the next file."""
    found = []
    for child in children():
        with suppress(psutil.Error):  # it has ended
            if "stream_app.exports.formats.framing_process" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    end_idle()
    assert [child for child in children() if child not in before] == []


def test_bytes_and_counts_equal_those_of_framing_in_this_process() -> None:
    here, there = Tally(), Tally()
    expected = b"".join(JsonFormat().frame(iter(ROWS), DOCUMENT, here))
    assert b"".join(frame_in_process(JsonFormat(), iter(ROWS), DOCUMENT, there)) == expected
    assert there == here
    assert there.rows == 1_000_000


def test_no_rows() -> None:
    assert b"".join(frame_in_process(JsonFormat(), iter([]), DOCUMENT, Tally())) == b"[]\n"


def test_a_process_is_used_again() -> None:
    first, second = run(b"pid"), run(b"pid")
    assert first == second
    os.kill(int(first[:-1]), signal.SIGKILL)
    while psutil.Process(int(first[:-1])).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert run(b"pid") != first


def test_two_files_at_a_time_are_written_by_two_processes() -> None:
    one = frame_in_process(Awkward(), iter([b"pid", b"pid"]), DOCUMENT, Tally())
    first = next(one)
    assert run(b"pid") != first + b"."
    assert first in b"".join(one)


def test_the_counts_grow_while_rows_arrive() -> None:
    """While the process has not reported a row, rows still come, for as long as a wait of a test."""
    run(b"x")
    tally = Tally()
    given = 0
    ends = time.monotonic() + patient(WITHIN)

    def chunks() -> Iterator[bytes]:
        nonlocal given
        while not (tally.rows and tally.warnings["odd"]) and time.monotonic() < ends:
            given += 1
            yield b"warn"
            time.sleep(0.001)
        assert 0 < tally.rows <= given
        for _ in range(10):
            given += 1
            yield b"warn"

    assert len(b"".join(frame_in_process(Awkward(), chunks(), DOCUMENT, tally))) == given
    assert (tally.rows, tally.warnings) == (given, {"odd": given})


def test_large_data_in_both_directions() -> None:
    assert len(run(*[b"large", b"y" * 5_000_000] * 4)) == 40_000_008


def test_output_of_a_library_is_not_in_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(b"print", b"x") == b".."


def test_unread_rows_are_not_part_of_the_next_file() -> None:
    assert run(b"end", b"die") == b""
    assert run(b"x") == b"."


def test_an_error_of_the_source_is_raised_and_ends_the_process() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        list(frame_in_process(Awkward(), chunks(), DOCUMENT, Tally()))
    assert framing() == []


def test_an_error_of_the_format_is_raised() -> None:
    with pytest.raises(Rejected, match="too odd") as caught:
        run(b"x", b"reject", *[b"y" * 1_000_000] * 5)
    assert caught.value.code == "odd"
    with pytest.raises(RuntimeError, match="Local: cannot be pickled"):
        run(b"odd")
    with pytest.raises(Retryable, match="out of memory"):
        run(b"memory")


@pytest.mark.parametrize("more", [0, 10])
def test_a_killed_process_is_retryable(more: int) -> None:
    with pytest.raises(Retryable, match="was killed by signal 9"):
        run(b"x", b"die", *[b"y" * 1_000_000] * more)
    assert run(b"x") == b"."


def test_closing_early_ends_the_process() -> None:
    framed = frame_in_process(Awkward(), iter([b"pid"] * 10), DOCUMENT, Tally())
    pid = int(next(framed))
    framed.close()  # type: ignore[attr-defined]
    assert not psutil.pid_exists(pid)


def test_a_slow_reader_slows_the_rows_down() -> None:
    given = 0

    def chunks() -> Iterator[bytes]:
        nonlocal given
        for _ in range(100):
            given += 1
            yield b"large" if given % 2 else b"y" * 5_000_000

    framed = frame_in_process(Awkward(), chunks(), DOCUMENT, Tally())
    next(framed)
    time.sleep(0.5)
    assert given < 5
    (child,) = framing()
    assert child.memory_info().rss < 150 * 2**20
    framed.close()  # type: ignore[attr-defined]


def test_a_process_ends_with_its_parent() -> None:
    script = (
        "import os\n"
        "from tests.integration.processes.test_framing import run\n"
        "print(run(b'pid').decode().strip('.'), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    assert parent.returncode == -signal.SIGKILL
    until(lambda: not psutil.pid_exists(int(parent.stdout)))


def test_modules_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S16: a file there with the name of a library must not be imported."""
    end_idle()
    for name in ("reportlab", "pickle", "struct", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    test_bytes_and_counts_equal_those_of_framing_in_this_process()
    end_idle()
