"""What the tutorial publishes becomes a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import System

TEXT = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text("utf-8")


def test_a_service_in_python_asks_for_an_export(system: System) -> None:
    (program,) = re.findall(r"### Python\n+```python\n(.*?)```", TEXT, re.DOTALL)
    brokers = system.stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    asked = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BROKERS": brokers},
        capture_output=True,
        text=True,
        check=True,
    )
    job_id = asked.stdout.strip()
    assert system.ended(job_id)["status"] == "completed"
    assert system.file(job_id).startswith(b"id,customer_id,total")
