"""Links in mails give access like passwords, so the log of the API does not contain them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.settings import Settings
from tests.waiting import patient


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The API as a process, with all other parts unavailable: its address and its log."""
    away = {
        "EXPORTER_DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
        "EXPORTER_SOURCE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
        "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    log = tmp_path / "api.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "api", "--port", "0"], stderr=file, env=os.environ | away
        )
    try:
        while not (found := re.search(r"running on (http://[\d.:]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield found[1], log
    finally:
        process.terminate()
        process.wait(patient(30))


def test_the_log_contains_no_links(served: tuple[str, Path]) -> None:
    address, log = served
    links = DeliveryLinks(Settings(_env_file=None))
    paths = [httpx2.URL(getattr(links, kind)(uuid4())).path for kind in ("download", "unsubscribe")]
    with httpx2.Client(base_url=address, timeout=patient(30)) as client:
        assert client.get(paths[0]).status_code == 503
        assert client.get(paths[1]).status_code == 503  # the page says from what one unsubscribes
        assert client.post(paths[1]).status_code == 503
    written = log.read_text()
    assert written.count("request.failed") == 3
    for path in paths:
        assert path.rpartition("/")[2] not in written
