"""Tests a destination: signs in, writes, reads and removes a small file.

It blocks, so it belongs in a thread.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from stream_app.datasets.destinations import Destination
from stream_app.destinations.errors import DestinationError
from stream_app.destinations.session import OutgoingFile, Session, SessionOptions, open_session
from stream_app.settings import Settings

log = structlog.get_logger(__name__)

NAME = ".exporter-test-"
"""Begin of the name of the file."""


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One step: ``sign in``, ``write``, ``read`` or ``remove``.

    ``error`` is why it failed, for users; ``detail`` is the text of the server, for operators.
    """

    step: str
    error: str | None = None
    detail: str | None = None


def probe(destination: Destination, settings: Settings) -> Iterator[ProbeStep]:
    """Yield each step after it was done. The first step that fails is the last one, besides the removal."""
    content = secrets.token_hex(16).encode()
    digest = hashlib.sha256(content).hexdigest()
    name = NAME + secrets.token_hex(6)
    file = OutgoingFile(name, name, "text/plain", len(content), digest)
    options = SessionOptions(f"exporter-test-{secrets.token_hex(6)}", 1, lambda: False)

    def write(session: Session) -> None:
        session.put(file, iter([content]))

    def read(session: Session) -> None:
        if session.read(name) != content:
            raise DestinationError("the destination has other content than was written")

    def remove(session: Session) -> None:
        session.remove(name)

    with ExitStack() as stack:
        try:
            session = stack.enter_context(open_session(destination, settings, options))
        except DestinationError as error:
            yield _failed(destination, "sign in", error)
            return
        yield ProbeStep("sign in")
        is_written = False
        for step, act in {"write": write, "read": read, "remove": remove}.items():
            if step == "remove" and not is_written:
                return
            try:
                act(session)
            except DestinationError as error:
                yield _failed(destination, step, error)
            else:
                is_written = is_written or step == "write"
                yield ProbeStep(step)
            if step == "write" and not is_written:
                return


def _failed(destination: Destination, step: str, error: DestinationError) -> ProbeStep:
    log.warning("destination.test_failed", destination=destination.name, step=step, error=error.detail)
    return ProbeStep(step, str(error), error.detail)
