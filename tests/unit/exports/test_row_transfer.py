"""The transfer of rows to the thread that writes files: its errors, and the pause of the transaction."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any, cast

import pytest

from stream_app.exports.files.file_writer import FileWriter
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.reading.row_reader import RowReader
from stream_app.exports.reading.row_transfer import RowStream, RowTransfer
from stream_app.exports.sources.errors import source_errors
from stream_app.exports.sources.snapshot import Sink, Snapshot
from stream_app.exports.task import ExportProgress
from stream_app.observability.metrics import ERRORS
from streaming_exporter.errors import Retryable
from tests.waiting import patient


@dataclass
class Kind:
    file_format: Any = field(default_factory=lambda: FORMATS["csv"])


@dataclass
class Writer:
    """Writes nothing: it fails, or waits until it is allowed to end."""

    error: BaseException | None = None
    kind: Kind = field(default_factory=Kind)
    stopped: Event = field(default_factory=Event)
    allowed: Event = field(default_factory=Event)
    keys: tuple[str, ...] = ()
    row_count: int = 0

    def write(self, chunks: Iterator[bytes]) -> Any:
        for _ in chunks:
            pass
        if self.error is not None:
            raise self.error
        assert self.allowed.wait(patient(10))
        return self


class Reader:
    async def read(self, snapshot: Snapshot, sink: Sink) -> int:
        await sink(b"1\n")
        return 1


@dataclass
class Opened:
    """A snapshot that records its calls. Each call allows the writer to end."""

    writer: Writer
    told: list[str] = field(default_factory=list)

    async def end(self) -> None:
        self.told.append("end")
        self.writer.allowed.set()

    async def allow_pause(self) -> None:
        self.told.append("pause")
        self.writer.allowed.set()


@pytest.fixture
async def threads() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def parts(writer: Writer, threads: ThreadPoolExecutor) -> tuple[Opened, RowTransfer, RowStream]:
    opened = Opened(writer)
    transfer = RowTransfer(cast(Snapshot, opened), threads, None, ExportProgress())
    return opened, transfer, RowStream(cast(RowReader, Reader()), cast(FileWriter, writer))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("no space left"), "^writing the file: no space left$"),
        (TimeoutError(), "^writing the file: TimeoutError$"),
    ],
)
async def test_an_error_of_the_writing_thread_is_none_of_the_source(
    error: BaseException, text: str, threads: ThreadPoolExecutor
) -> None:
    _, transfer, stream = parts(Writer(error), threads)
    counter = ERRORS.labels("source_database", Retryable.code)
    before = counter._value.get()
    with pytest.raises(Retryable, match=text), source_errors():
        await transfer.run(stream)
    assert counter._value.get() == before


@pytest.mark.parametrize(("ends", "told"), [(True, ["end"]), (False, ["pause"])])
async def test_a_transaction_that_goes_on_is_allowed_to_pause_before_the_upload_ends(
    ends: bool, told: list[str], threads: ThreadPoolExecutor
) -> None:
    """A slow store is no reason for the server to end the transaction."""
    opened, transfer, stream = parts(Writer(), threads)
    await transfer.run(stream, ends=ends)
    assert opened.told == told
