"""The installed program completes what is typed, as the command does in its unit tests."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.producers.fake_server import fake_server
from tests.unit.producers.test_completion import serve, variables

EXPORTER = Path(sys.executable).with_name("exporter")


def test_the_program_offers_names_of_the_api() -> None:
    with fake_server() as server:
        serve(server)
        asked = variables("exporter request --export-type le", server.url)
        done = subprocess.run([EXPORTER], env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["ledger"]
