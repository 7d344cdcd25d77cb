"""The ticker's log (people 49): one JSON object in each line, as the services write it."""

import json
import logging
import sys
from datetime import datetime

import pytest

from producers.json_log import JsonFormatter


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        (
            "tick.published: %s",
            ("2026-11-26T12:27:00+00:00",),
            ("tick.published", "2026-11-26T12:27:00+00:00"),
        ),
        ("tick.publish_failed: %s: %s", ("12:27", "a\nb"), ("tick.publish_failed", "12:27: a\nb")),
        ("no detail", (), ("no detail", None)),
    ],
)
def test_a_line_is_one_object(
    message: str, arguments: tuple[str, ...], expected: tuple[str, str | None]
) -> None:
    record = logging.LogRecord("producers.ticker", logging.INFO, __file__, 1, message, arguments, None)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["event"], line.get("detail")) == expected
    assert (line["logger"], line["level"]) == ("producers.ticker", "info")
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


def test_a_line_has_the_traceback() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "tick.crashed", (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError: wrong" in line["exception"]
