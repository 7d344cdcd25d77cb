"""What the log has and what it leaves out."""

import json
import logging
from collections.abc import Iterator

import pytest

from stream_app.observability import logs
from stream_app.settings import Settings


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which gets its handlers back."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize(("level", "shown"), [("INFO", False), ("DEBUG", True)])
def test_starts_and_stops_of_parts_of_faust_are_left_out(
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    level: str,
    shown: bool,
) -> None:
    """People 48: ``[^--LosslessConsumer]: Starting...`` stood among the events of the service."""
    logs.configure(Settings(_env_file=None, log_level=level, log_format="json"))
    own = logging.getLogger("stream_app.kafka.consumer")
    own.info("[^--%s]: Starting...", "LosslessConsumer")
    own.warning("[^--%s]: Crashed", "LosslessConsumer")
    own.info("an event")
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    starting = ["[^--LosslessConsumer]: Starting..."] if shown else []
    assert events == [*starting, "[^--LosslessConsumer]: Crashed", "an event"]
