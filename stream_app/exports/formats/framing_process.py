"""Framing in a process of its own, for formats whose framing would hold the interpreter's lock.

The child is a fresh interpreter rather than a fork: the worker has threads, an event loop and open
connections. It gets rows and gives bytes over two pipes, whose sizes are all that waits between the two
sides; one thread of the parent serves both, so that neither can block the other. A child that did its
work well is kept for the next file, since starting one costs more than a small file does; it ends by
itself when its standard input does, however the parent ended.
"""

import atexit
import os
import pickle
import selectors
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from streaming_exporter.errors import Retryable

if TYPE_CHECKING:
    from stream_app.exports.formats.base import Document, Format, Tally

PIPE_BYTES = 2**20
KEPT = 1
"""Children that wait for a next file."""

_SIZE = struct.Struct(">I")
_HEAD = struct.Struct(">cI")
_BYTES, _TALLY, _ERROR, _DONE = b"B", b"T", b"E", b"D"

_idle: "list[_Child]" = []


def frame_in_process(
    output: "Format", chunks: Iterator[bytes], document: "Document", tally: "Tally"
) -> Iterator[bytes]:
    """What ``output.frame`` yields, worked out by another process; ``tally`` follows along.

    Raises:
        Retryable: the process died. What ``chunks`` or ``output.frame`` raises passes. The process does
            not outlive an error, nor a generator that is closed early.
    """
    child = _take_child()
    try:
        yield from child.frame(pickle.dumps((output, document)), chunks, tally)
    except BaseException:
        child.kill()
        raise
    if len(_idle) < KEPT:
        _idle.append(child)
    else:
        child.kill()


@atexit.register
def end_idle() -> None:
    """End the processes that wait for work."""
    while _idle:
        _idle.pop().kill()


def _search_path() -> list[str]:
    """Where the child finds modules: where this process does, but for the folder that one stands in.

    Anybody could have put a file there with the name of a library. It stays where the service itself is
    there, as in a checkout.
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
    """The parent's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],  # not from the folder that one stands in
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pipesize=PIPE_BYTES,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
            process_group=0,  # an interrupt from the keyboard is for the parent to handle
        )
        pipes = (self._process.stdin, self._process.stdout)
        self._to, self._from = (cast(IO[bytes], pipe).fileno() for pipe in pipes)
        os.set_blocking(self._to, False)
        self._received = bytearray()
        self._done = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now, and leave no zombie."""
        self._process.kill()
        with self._process:
            pass

    def frame(self, task: bytes, chunks: Iterator[bytes], tally: "Tally") -> Iterator[bytes]:
        self._done = False
        yield from self._send(task, tally)
        for chunk in chunks:
            if chunk:
                yield from self._send(chunk, tally)
        yield from self._send(b"", tally)
        while not self._done:
            yield from self._receive(tally)

    def _send(self, data: bytes, tally: "Tally") -> Iterator[bytes]:
        """Send one piece, while taking what the child has to say."""
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
                        ready.unregister(self._to)  # why it hung up comes by the other pipe

    def _receive(self, tally: "Tally") -> Iterator[bytes]:
        data = os.read(self._from, PIPE_BYTES)
        if not data:
            raise Retryable(f"the process that writes the file {_ending(self._process.wait())}")
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
                tally.rows, warnings = pickle.loads(content)  # noqa: S301
                tally.warnings.clear()
                tally.warnings.update(warnings)
            elif kind == _ERROR:
                raise pickle.loads(content)  # noqa: S301
            else:
                self._done = True
        del self._received[:start]


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def main() -> None:
    """The child: one file after the other, until there is no parent."""
    os.nice(5)  # the worker's event loop has the first turn
    incoming = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as outgoing:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is not the file's
        try:
            while task := _next(incoming):
                output, document = pickle.loads(task)  # noqa: S301
                _work(output, document, incoming, outgoing)
        except (EOFError, BrokenPipeError):
            os._exit(1)  # there is nobody to tell


def _work(output: "Format", document: "Document", incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    # Not before there is work: it loads what the formats need.
    from stream_app.exports.formats.base import Tally

    tally = Tally()
    reported = 0
    chunks = iter(lambda: _next(incoming), b"")

    def report() -> None:
        _say(outgoing, _TALLY, pickle.dumps((tally.rows, dict(tally.warnings))))

    try:
        for part in output.frame(chunks, document, tally):
            if tally.rows != reported:
                reported = tally.rows
                report()
            _say(outgoing, _BYTES, part)
        for _ in chunks:
            pass
        report()
        _say(outgoing, _DONE, b"")
    except (EOFError, BrokenPipeError):
        raise
    except BaseException as error:
        _say(outgoing, _ERROR, _portable(error))
        raise SystemExit(1) from None  # the rest of the rows would be taken for a task


def _portable(error: BaseException) -> bytes:
    if isinstance(error, MemoryError):
        error = Retryable("the process that writes the file ran out of memory")
    try:
        return pickle.dumps(error)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _next(incoming: IO[bytes]) -> bytes:
    """The next piece; empty at the end of a file's rows."""
    head = incoming.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    data = incoming.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _say(outgoing: IO[bytes], kind: bytes, content: bytes) -> None:
    outgoing.write(_HEAD.pack(kind, len(content)))
    outgoing.write(content)
    outgoing.flush()


if __name__ == "__main__":
    main()
