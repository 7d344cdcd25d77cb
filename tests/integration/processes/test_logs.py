"""Log lines as JSON and on a terminal, and the log level."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from stream_app.observability import logs
from stream_app.settings import Settings
logs.configure(Settings(_env_file=None))
log = structlog.get_logger("a.module")
log.debug("thing.looked_at")
with structlog.contextvars.bound_contextvars(job_id="7"):
    log.info("thing.done", rows=3)
logging.getLogger("aiokafka.conn").info("chatter")
logging.getLogger("elsewhere").warning("a library's %s", "line")
"""


def written(**settings: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_lines_are_json_without_a_terminal() -> None:
    done, foreign = map(json.loads, written())
    assert done.pop("timestamp").endswith("Z")
    assert done == {"event": "thing.done", "level": "info", "logger": "a.module", "job_id": "7", "rows": 3}
    assert (foreign["event"], foreign["level"], foreign["logger"]) == (
        "a library's line",
        "warning",
        "elsewhere",
    )


def test_lines_are_readable_on_a_console() -> None:
    done, _ = written(EXPORTER_LOG_FORMAT="console")
    assert "thing.done" in done
    assert not done.startswith("{")


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 4), ("ERROR", 0)])
def test_the_level_is_a_setting(level: str, count: int) -> None:
    assert len(written(EXPORTER_LOG_LEVEL=level)) == count
