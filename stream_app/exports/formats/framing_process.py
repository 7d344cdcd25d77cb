"""Framing in a child process, for formats whose framing would hold the interpreter's lock.

The child is a new interpreter and not a fork, because the worker has threads, an event loop and open
connections. It receives rows and returns bytes over two pipes, whose buffers are the only queue. One thread
of the parent serves both pipes, so neither of them can block the other. After a success the child is kept for
the next file, because its start costs more than a small file. It ends by itself when its standard input is
closed, even if the parent was killed.
"""

import atexit
import os
import pickle
import selectors
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from streaming_exporter.errors import Retryable

if TYPE_CHECKING:
    from stream_app.exports.formats.base import Document, Format, Tally

PIPE_BYTES = 2**20
KEPT = 1
"""Number of idle children that are kept."""

_SIZE = struct.Struct(">I")
_HEAD = struct.Struct(">cI")
_BYTES, _TALLY, _ERROR, _DONE = b"B", b"T", b"E", b"D"

_idle: "list[_Child]" = []


def frame_in_process(
    file_format: "Format", chunks: Iterator[bytes], document: "Document", tally: "Tally"
) -> Iterator[bytes]:
    """Run ``file_format.frame`` in another process and yield its bytes. ``tally`` grows meanwhile.

    Raises:
        Retryable: the process died.

    Errors of ``chunks`` and of ``file_format.frame`` pass. After an error, or if the generator is closed
    early, the process is killed.
    """
    child = _take_child()
    try:
        yield from child.frame(pickle.dumps((file_format, document)), chunks, tally)
    except BaseException:
        child.kill()
        raise
    if len(_idle) < KEPT:
        _idle.append(child)
    else:
        child.kill()


@atexit.register
def end_idle() -> None:
    """End the idle processes."""
    while _idle:
        _idle.pop().kill()


def _search_path() -> list[str]:
    """Return the module search path of the child: that of this process without the working directory.

    A file in the working directory could have the name of a library. The directory stays in the path if the
    service itself is in it, as in a checkout.
    """
    here = Path.cwd()
    own = Path(__file__).parents[3]
    return [part for part in sys.path if part and (Path(part) != here or here == own)]


def _take_child() -> "_Child":
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return _Child()
        if child.alive:
            return child
        child.kill()


class _Child:
    """The parent's side of a child process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],  # not from the working directory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pipesize=PIPE_BYTES,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
            process_group=0,  # only the parent handles an interrupt from the keyboard
        )
        pipes = (self._process.stdin, self._process.stdout)
        self._to, self._from = (cast(IO[bytes], pipe).fileno() for pipe in pipes)
        os.set_blocking(self._to, False)
        self._received = bytearray()
        self._before: tuple[int, Counter[str]] = 0, Counter()
        self._done = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process and wait for its end, so that no zombie is left."""
        self._process.kill()
        with self._process:
            pass

    def frame(self, task: bytes, chunks: Iterator[bytes], tally: "Tally") -> Iterator[bytes]:
        self._done = False
        self._before = tally.rows, Counter(tally.warnings)
        yield from self._send(task, tally)
        for chunk in chunks:
            if chunk:
                yield from self._send(chunk, tally)
        yield from self._send(b"", tally)
        while not self._done:
            yield from self._receive(tally)

    def _send(self, data: bytes, tally: "Tally") -> Iterator[bytes]:
        """Send one message, and yield the bytes that the child returns meanwhile."""
        left = memoryview(_SIZE.pack(len(data)) + data)
        with selectors.DefaultSelector() as ready:
            ready.register(self._to, selectors.EVENT_WRITE)
            ready.register(self._from, selectors.EVENT_READ)
            while left:
                for key, _ in ready.select():
                    if key.fd == self._from:
                        yield from self._receive(tally)
                        continue
                    try:
                        left = left[os.write(self._to, left) :]
                    except BrokenPipeError:
                        ready.unregister(self._to)  # the other pipe has the reason

    def _receive(self, tally: "Tally") -> Iterator[bytes]:
        data = os.read(self._from, PIPE_BYTES)
        if not data:
            raise Retryable(f"the process that writes the file {_end_text(self._process.wait())}")
        self._received += data
        start = 0
        while len(self._received) - start >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._received, start)
            end = start + _HEAD.size + size
            if len(self._received) < end:
                break
            content = bytes(self._received[start + _HEAD.size : end])
            start = end
            if kind == _BYTES:
                yield content
            elif kind == _TALLY:
                rows, warnings = pickle.loads(content)  # noqa: S301 - the bytes of a process of this program
                rows_before, warnings_before = self._before
                tally.rows = rows_before + rows
                tally.warnings.clear()
                tally.warnings.update(warnings_before)
                tally.warnings.update(warnings)
            elif kind == _ERROR:
                raise pickle.loads(content)  # noqa: S301 - the bytes of a process of this program
            else:
                self._done = True
        del self._received[:start]


def _end_text(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def main() -> None:
    """Run the child: frame one file after the other, until the parent closes the pipe."""
    os.nice(5)  # the worker's event loop has priority
    incoming = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as outgoing:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not get into the file
        try:
            while task := _read_message(incoming):
                file_format, document = pickle.loads(task)  # noqa: S301 - the bytes of a process of this program
                _frame_file(file_format, document, incoming, outgoing)
        except (EOFError, BrokenPipeError):
            os._exit(1)  # the parent is gone


def _frame_file(
    file_format: "Format", document: "Document", incoming: IO[bytes], outgoing: IO[bytes]
) -> None:
    # Imported late, because it loads the libraries of the formats.
    from stream_app.exports.formats.base import Tally

    tally = Tally()
    reported = 0
    chunks = iter(lambda: _read_message(incoming), b"")

    def report() -> None:
        _write_message(outgoing, _TALLY, pickle.dumps((tally.rows, dict(tally.warnings))))

    try:
        for part in file_format.frame(chunks, document, tally):
            if tally.rows != reported:
                reported = tally.rows
                report()
            _write_message(outgoing, _BYTES, part)
        for _ in chunks:
            pass
        report()
        _write_message(outgoing, _DONE, b"")
    except (EOFError, BrokenPipeError):
        raise
    except BaseException as error:
        _write_message(outgoing, _ERROR, _portable(error))
        raise SystemExit(1) from None  # the remaining rows must not be read as the next task


def _portable(error: BaseException) -> bytes:
    if isinstance(error, MemoryError):
        error = Retryable("the process that writes the file ran out of memory")
    try:
        return pickle.dumps(error)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _read_message(incoming: IO[bytes]) -> bytes:
    """Return the next message. It is empty after the last rows of a file."""
    head = incoming.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    data = incoming.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _write_message(outgoing: IO[bytes], kind: bytes, content: bytes) -> None:
    outgoing.write(_HEAD.pack(kind, len(content)))
    outgoing.write(content)
    outgoing.flush()


if __name__ == "__main__":
    main()
