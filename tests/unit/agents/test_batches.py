"""A batch waits for the part that refuses it, and says so where the watchdog looks."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from stream_app.agents.batches import _handle_all, sorted_out
from stream_app.agents.emitter import Emitter
from stream_app.errors import Outage, Unreadable
from stream_app.events import Topic, cancel_event, tick_event


class Refusing:
    """Takes a batch, or puts a message aside, the second time only."""

    def __init__(self, *, impossible: bool) -> None:
        self.impossible = impossible
        self.refused = False
        self.dead: list[str] = []

    def _refuse_once(self) -> None:
        if not self.refused:
            self.refused = True
            raise Outage("the disk is full")

    async def handle(self, _: Sequence[Any]) -> None:
        if self.impossible:
            raise KeyError("impossible")
        self._refuse_once()

    async def dead_letter(self, _: object, reason: Unreadable) -> None:
        self._refuse_once()
        self.dead.append(str(reason))


@pytest.mark.parametrize("impossible", [False, True])
async def test_a_refusal_is_noted(impossible: bool) -> None:
    app = SimpleNamespace(held_up_at=None, held_up_by="")
    message = SimpleNamespace(app=app, message=SimpleNamespace(topic="t"))
    parts = Refusing(impossible=impossible)
    before = time.monotonic()
    await _handle_all(cast(Any, [message]), parts.handle, cast(Emitter, parts))
    assert before <= app.held_up_at <= time.monotonic()
    assert app.held_up_by == "the disk is full"
    assert len(parts.dead) == impossible


def test_a_batch_is_sorted_out_in_order() -> None:
    at = datetime(2026, 11, 24, 6, tzinfo=UTC)
    ticks = [tick_event(at, source="/t"), tick_event(at, source="/u")]
    misplaced = cancel_event(uuid4(), source="/t")
    contents = [ticks[0].encode(), b"?", misplaced.encode(), None, ticks[1].encode()]
    messages = [SimpleNamespace(message=SimpleNamespace(value=content)) for content in contents]
    read, unread = sorted_out(cast(Any, messages), Topic.TICKS)
    read = cast(list[Any], read)
    assert read == [(messages[0], ticks[0]), (messages[4], ticks[1])]
    assert [message for message, _ in unread] == messages[1:4]
    assert "export.cancel_requested does not belong on exports.ticks" in str(unread[1][1])
