"""An outage that lasts writes few lines."""

import logging
import time

import pytest
import stamina.instrumentation
import structlog

from stream_app.observability import logs
from stream_app.observability.logs import RepeatedLines, log_retry


def line(text: str, *arguments: object, name: str = "aiokafka") -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "f", 1, text, arguments, None)


def test_lines_of_libraries_that_repeat_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, now = RepeatedLines(), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert lines.filter(line("no %s", "a"))
    assert lines.filter(line("no %s", "b")), "it is about something else"
    assert not any(lines.filter(line("no %s", "a")) for _ in range(7))
    now += logs.REPEATED_SECONDS
    again = line("no %s", "a")
    assert lines.filter(again)
    assert again.getMessage() == "no a (repeated 7 times)"
    own = line("x")
    own.msg = {"event": "thing.done"}
    assert all(lines.filter(own) for _ in range(3)), "lines of the service are kept"


def test_the_lines_that_are_known_are_bounded() -> None:
    lines = RepeatedLines()
    for number in range(2 * logs.KNOWN_LINES):
        lines.filter(line("no %s", number))
    assert len(lines._written) == logs.KNOWN_LINES


def test_retries_of_a_day_are_some_lines() -> None:
    with structlog.testing.capture_logs() as written:
        for number in range(1, 17_281):
            details = stamina.instrumentation.RetryDetails(
                name="f", args=(), kwargs={}, retry_num=number, wait_for=5.0, waited_so_far=1.0,
                caused_by=RuntimeError("Kafka is away"),
            )  # fmt: skip
            log_retry(details)
    assert len(written) == 15
    assert {item["error"] for item in written} == {"Kafka is away"}
