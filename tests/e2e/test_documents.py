"""The commands in the documents are run unchanged, and each export that they request becomes a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producers.tokens import sign_token
from tests.documents import BLOCKS, Block
from tests.e2e.conftest import System
from tests.stacks import settings_of
from tests.waiting import patient, until

PROGRAMS = Path(__file__).with_name("programs")
RUN = [block for block in BLOCKS if block.test == "run"]


def made(system: System, what: str) -> set[str]:
    """Return the ids of the newest jobs, or schedules, of all users."""
    answer = system.client.get(f"/exports/{what}?limit=100").json()
    return {item["export_job_id" if what == "jobs" else "id"] for item in answer[what]}


def run(block: Block, system: System, folder: Path) -> str:
    """Run the block on this system instead of one with the usual addresses; return its output."""
    settings = system.stack.settings()
    brokers = settings["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    text = block.text
    for usual, here in (
        ("127.0.0.1:9092", brokers),
        ("http://127.0.0.1:8000", system.api.url),
        (".venv/bin/exporter", "exporter"),
    ):
        text = text.replace(usual, here)
    path = f"{PROGRAMS}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        **settings,
        "EXPORTER_PUBLIC_URL": system.api.url,
        "PATH": path,
        "BROKERS": brokers,
        "TOKEN": sign_token(settings_of(system.stack), "customer-3"),
    }
    command = [sys.executable, "-c", text] if block.language == "python" else ["sh", "-eu", "-c", text]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=patient(60)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("block", RUN, ids=str)
def test_the_block_works_as_documented(block: Block, system: System, tmp_path: Path) -> None:
    jobs, schedules = made(system, "jobs"), made(system, "schedules")
    printed = run(block, system, tmp_path)
    if "schedule create" in block.text:
        (schedule,) = made(system, "schedules") - schedules
        assert schedule in printed
        system.client.delete(f"/exports/schedules/{schedule}").raise_for_status()
        return
    (job,) = until(lambda: made(system, "jobs") - jobs)
    assert system.ended(job)["status"] == "completed"
    assert system.file(job)
    assert bool(list(tmp_path.iterdir())) is ("--output" in block.text)
