"""Every command prints JSON with ``--json``: one document, or one line for each entry of a list."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from producers import job_commands
from producers.__main__ import cli
from streaming_exporter.errors import PublishError
from streaming_exporter.events import Event
from streaming_exporter.publisher import Publisher
from tests.built_once import command_of
from tests.rows import each_row
from tests.unit.producers.fake_server import FakeServer

PROCESSES = {"api", "worker", "tick", "up", "demo"}
"""Commands that run until they are stopped, and the demonstration: what they print is for people."""

JOB, SCHEDULE = "4f1c0de0-0000-4000-8000-000000000001", "4f1c0de0-0000-4000-8000-000000000002"
NAME = "Zürich, Łódź… 100 €, 😀"
NARROW = ["cp437", "latin-1"]
"""Encodings of terminals that have not all characters of the texts."""
SECRET = "0123456789abcdef0123456789abcdef"


def commands(group: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Yield every command below ``group`` with its name, such as ``schedule list``."""
    context = group.context_class(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, TyperGroup):
            yield from commands(command, *names, name)
        else:
            yield " ".join((*names, name)), command


COMMANDS = dict(commands(command_of(cli)))


@each_row("name", sorted(COMMANDS.keys() - PROCESSES))
def test_every_command_has_the_option_json(name: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


def test_the_walk_meets_the_commands_of_all_packages() -> None:
    assert {
        "request",
        "schedule list",
        "dead-letters redrive",
        "migrate",
        "datasets check",
    } <= COMMANDS.keys()
    assert COMMANDS.keys() >= PROCESSES


def run(server: FakeServer, *arguments: str, charset: str = "utf-8") -> Result:
    variables = {"EXPORTER_PUBLIC_URL": server.url, "EXPORTER_JWT_SECRET": SECRET}
    return CliRunner(charset=charset).invoke(cli, list(arguments), env=variables)


@pytest.fixture
def _published(monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(_: Publisher, event: Event) -> None:
        assert event.id

    monkeypatch.setattr(Publisher, "publish", publish)


CREATE = ("create", "--export-type", "ledger", "--format", "csv", "--schedule", "daily")
WHAT = {"export_type": "ledger", "format": "csv"}
REQUEST = ("request", "--export-type", "ledger", "--format", "csv", "--user-id", "u")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (REQUEST, "export_job_id"),
        ((*REQUEST, "--watch"), "row_count"),
        (("status", JOB), "row_count"),
        (("watch", JOB), "files"),
        (("cancel", JOB), "status"),
        (("rerun", JOB), "export_job_id"),
        (("rerun", JOB, "--watch"), "files"),
        (("token", "--user-id", "u"), "token"),
        (("schedule", *CREATE), "next_runs"),
        (("schedule", "edit", SCHEDULE, "--name", "n"), "next_runs"),
        (("schedule", "duplicate", SCHEDULE), "next_runs"),
        (("schedule", "list"), "next_runs"),
        (("schedule", "show", SCHEDULE), "last_runs"),
        (("schedule", "runs", SCHEDULE), "run_at"),
        (("schedule", "pause", SCHEDULE), "next_runs"),
        (("schedule", "resume", SCHEDULE), "next_runs"),
        (("schedule", "run", SCHEDULE), "export_job_id"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("charset", ["utf-8", *NARROW])
@pytest.mark.usefixtures("_published")
def test_with_json_standard_output_is_one_document(
    server: FakeServer, arguments: tuple[str, ...], field: str, charset: str
) -> None:
    job = {"export_job_id": JOB, "status": "completed", "export_type": "ledger", "format": "csv"}
    server.add(f"/exports/jobs/{JOB}", 200, {**job, "row_count": 3, "name": NAME})
    schedule: dict[str, Any] = {"id": SCHEDULE, "export_type": "ledger", "format": "csv", "user_id": "u"}
    schedule |= {"schedule": "daily", "time_of_day": "06:00:00", "timezone": "UTC", "active": True}
    schedule |= {"next_runs": ["2026-12-01T06:00:00Z"], "paused_reason": None, "name": NAME}
    schedule |= {"filters": {}, "columns": None, "options": {}}
    runs = [{"run_at": "2026-12-01T06:00:00Z", "export_job_id": JOB, "status": "completed", "error": None}]
    server.add(f"/exports/jobs/{JOB}:rerun", 202, {"export_job_id": JOB, "status": "pending", "name": NAME})
    root = "/exports/schedules"
    server.add(root, 201, schedule)
    server.add(f"{root}?limit=100", 200, {"schedules": [schedule], "next_cursor": None})
    server.add(f"{root}/{SCHEDULE}", 200, schedule)
    for limit in (5, 20):
        server.add(f"{root}/{SCHEDULE}/runs?limit={limit}", 200, {"runs": runs, "next_cursor": None})
    server.add(f"{root}/{SCHEDULE}:run", 202, {"export_job_id": JOB, "status": "pending"})
    if "--watch" in arguments and arguments[0] == "request":
        arguments = (*arguments, "--job-id", JOB)
    result = run(server, *arguments, "--json", charset=charset)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert field in document
    assert document.get("name", NAME) == NAME
    assert result.stdout.count("\n") == 1


@each_row("name", sorted(COMMANDS.keys() - PROCESSES))
def test_with_json_the_error_of_every_command_is_a_document(name: str) -> None:
    """An argument is missing, or a setting is wrong."""
    result = CliRunner().invoke(cli, [*name.split(), "--json"], env={"EXPORTER_WORKER_SLOTS": "many"})
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert error["code"] in ("bad_settings", "usage")
    assert error["message"]


@each_row("name", sorted(COMMANDS.keys() - PROCESSES))
@each_row("wrong", [("--no-such-option",), ("a", "b", "c", "d")])
def test_with_json_an_error_of_the_command_line_is_a_document(name: str, wrong: tuple[str, ...]) -> None:
    """An option is unknown, or there are too many arguments."""
    assert_usage_error(*name.split(), *wrong, "--json")


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command", "--json"),
        ("schedule", "no-such-command", "--json"),
        ("schedule", "--json"),
        ("--no-such-option", "jobs", "--json"),
        ("jobs", "--json", "--user-id"),
    ],
    ids=" ".join,
)
def test_with_json_an_unknown_command_is_a_document(arguments: tuple[str, ...]) -> None:
    assert_usage_error(*arguments)


def assert_usage_error(*arguments: str) -> None:
    result = CliRunner().invoke(cli, list(arguments), env={})
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "usage"
    assert error["message"]


@each_row("charset", NARROW)
@each_row("name", sorted(COMMANDS))
def test_every_help_can_be_printed_in_every_encoding(name: str, charset: str) -> None:
    result = CliRunner(charset=charset).invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("charset", NARROW)
def test_an_error_is_a_document_in_every_encoding(server: FakeServer, charset: str) -> None:
    server.add(f"/exports/jobs/{JOB}", 403, {"title": "Forbidden", "detail": NAME})
    result = run(server, "status", JOB, "--json", charset=charset)
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["message"] == NAME


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage of the API is an error at once."""
    follow = job_commands.follow
    monkeypatch.setattr(job_commands, "follow", partial(follow, interval=0.0, outage_seconds=0.0))


@pytest.mark.parametrize("status", [401, 500, 308, 404, None], ids=str)
@pytest.mark.parametrize("own", [("--watch",), ("--output", ".")], ids=" ".join)
@pytest.mark.usefixtures("_published", "_no_patience")
def test_the_error_after_a_request_was_published_has_its_job(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, own: tuple[str, ...], status: int | None
) -> None:
    if status == 404:
        monkeypatch.setattr(job_commands, "follow", partial(job_commands.follow, admission_seconds=0.0))
    if status is None:
        server.url = "http://127.0.0.1:1"
    else:
        server.add(f"/exports/jobs/{JOB}", status, {"title": "No"})
    result = run(server, *REQUEST, *own, "--job-id", JOB, "--json")
    assert result.exit_code == 1, result.output
    error = json.loads(result.stderr.splitlines()[-1])["error"]  # after the progress
    assert (error["code"], error["export_job_id"], error["is_in_doubt"]) == ("api_error", JOB, False)


@pytest.mark.usefixtures("_no_patience")
def test_the_error_after_a_rerun_has_the_new_job(server: FakeServer) -> None:
    server.add(f"/exports/jobs/{SCHEDULE}:rerun", 202, {"export_job_id": JOB, "status": "pending"})
    server.add(f"/exports/jobs/{JOB}", 200, {"export_job_id": JOB, "status": "failed"} | WHAT)
    result = run(server, "rerun", SCHEDULE, "--watch", "--json")
    assert result.exit_code == 1, result.output
    error = json.loads(result.stderr.splitlines()[-1])["error"]  # after the progress
    assert (error["code"], error["export_job_id"]) == ("job_ended", JOB)


def test_an_interruption_after_a_request_was_published_has_its_job(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job_commands, "follow", interrupt)
    result = run(server, "watch", JOB, "--json")
    assert result.exit_code == 130, result.output
    assert json.loads(result.stderr)["error"]["export_job_id"] == JOB


def test_an_error_in_doubt_says_how_the_call_is_repeated(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(f"/exports/jobs/{JOB}:rerun", 504)
    error = json.loads(run(server, "rerun", JOB, "--json").stderr)["error"]
    assert error["is_in_doubt"] is True
    assert server.seen[-1][1]["Idempotency-Key"] == error["idempotency_key"]

    async def publish(_: Publisher, event: Event) -> None:
        raise PublishError("no answer", job_id=UUID(JOB), is_in_doubt=event.type == "export.requested")

    monkeypatch.setattr(Publisher, "publish", publish)
    error = json.loads(run(server, *REQUEST, "--job-id", JOB, "--json").stderr)["error"]
    assert (error["export_job_id"], error["is_in_doubt"]) == (JOB, True)
    error = json.loads(run(server, "cancel", JOB, "--json").stderr)["error"]
    assert error["is_in_doubt"] is False


def test_with_json_an_error_is_a_document_too(server: FakeServer) -> None:
    result = run(server, "status", JOB, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["code"] == "api_error"
    wrong = run(server, *REQUEST, "--filter", "kind", "--json")
    assert wrong.exit_code == 2
    assert json.loads(wrong.stderr)["error"]["code"] == "usage"
