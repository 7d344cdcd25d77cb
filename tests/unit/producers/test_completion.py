"""Shells complete commands, names of datasets and formats, and ids of jobs; without the API nothing."""

import os

import pytest
from typer.testing import CliRunner

from producers.__main__ import cli
from tests.unit.producers.fake_server import FakeServer

JOBS = ["4f1c0de0-0000-4000-8000-000000000001", "5f1c0de0-0000-4000-8000-000000000002"]


def variables(words: str, url: str) -> dict[str, str]:
    """Return what bash sets to complete ``words``; the last of them is incomplete."""
    return {
        "_EXPORTER_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "EXPORTER_PUBLIC_URL": url,
        "EXPORTER_JWT_SECRET": "0123456789abcdef0123456789abcdef",
        "EXPORTER_SETTINGS_FILE": os.devnull,
    }


def complete(words: str, url: str) -> list[str]:
    """Return what the command offers. A test in tests/integration starts the installed program for it."""
    done = CliRunner().invoke(cli, env=variables(words, url), prog_name="exporter")
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("exporter stat", ["status"]),
        ("exporter request --export-type ", ["ledger", "orders"]),
        ("exporter request --export-type le", ["ledger"]),
        ("exporter request --format ", ["csv"]),
        ("exporter schedule create --export-type o", ["orders"]),
        ("exporter jobs --dataset o", ["orders"]),
        ("exporter status ", JOBS),
        (f"exporter download {JOBS[1][:9]}", JOBS[1:]),
        ("exporter why ", JOBS),
    ],
)
def test_names_and_ids_come_from_the_api(server: FakeServer, words: str, offered: list[str]) -> None:
    serve(server)
    assert complete(words, server.url) == offered


def serve(server: FakeServer) -> None:
    """Serve two datasets and a broken one, one format and two jobs."""
    names = [{"name": name, "label": None, "description": "rows"} for name in ("ledger", "orders")]
    broken = {"name": "broken", "label": None, "description": "rows", "error": "there is no such table"}
    formats = [{"name": "csv", "description": "for spreadsheets"}]
    server.add("/exports/datasets", 200, {"datasets": [*names, broken], "formats": formats})
    facts = {"export_type": "ledger", "format": "csv", "status": "completed", "created_at": "2026-11-24"}
    server.add("/exports/jobs?limit=30", 200, {"jobs": [{"export_job_id": job, **facts} for job in JOBS]})


def test_without_the_api_nothing_is_offered_and_nothing_is_printed() -> None:
    assert complete("exporter request --export-type ", "http://127.0.0.1:1") == []
