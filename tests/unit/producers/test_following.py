"""Following a job and downloading its file, with a faulty server."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from producers import job_commands
from producers.__main__ import cli
from producers.display import Bar, Lines, size
from producers.job_commands import follow
from streaming_exporter.api_answers import Job
from streaming_exporter.client import Client
from streaming_exporter.downloads import fetch
from streaming_exporter.errors import (
    ApiError,
    BadSettings,
    DownloadError,
    ExporterError,
    JobEnded,
    Rejected,
    UsageError,
)
from streaming_exporter.events import Event, EventType
from streaming_exporter.publisher import Publisher
from tests.unit.producers.fake_server import NOT_FOUND, FakeServer

JOB = uuid4()
PATH = f"/exports/jobs/{JOB}"
CONTENT = b"id,kind\n1,proof\n"


def record(status: str, **known: Any) -> dict[str, Any]:
    return {"export_job_id": str(JOB), "status": status, "export_type": "ledger", "format": "csv", **known}


def manifest(**changes: Any) -> dict[str, Any]:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return {"file_name": "ledger.csv", "bytes": len(CONTENT), "rows": 1, "sha256": digest, **changes}


@pytest.fixture
def api(server: FakeServer) -> Iterator[Client]:
    with Client(server.url, "the-token") as opened:
        yield opened


def finished(server: FakeServer, **changes: Any) -> None:
    server.add(PATH, 200, record("completed", row_count=1, file_size=len(CONTENT)))
    server.add(f"{PATH}/manifest", 200, manifest(**changes))
    server.add(f"{PATH}/download", 307, Location=f"{server.url}/store/file?signature=x")
    server.add("/store/file?signature=x", 200, CONTENT)


def watch(api: Client, **limits: float) -> tuple[Job, list[str]]:
    seen: list[str] = []
    job = follow(
        api, JOB, lambda job: seen.append(job.status if job else "unknown"), **{"interval": 0.01, **limits}
    )
    return job, seen


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([(200, record("processing"))], 0, f"Cancellation requested: {JOB}\n"),
        (
            [(404, NOT_FOUND), (404, NOT_FOUND), (200, record("pending"))],
            0,
            f"Cancellation requested: {JOB}\n",
        ),
        ([(404, NOT_FOUND)], 1, f"there is no job {JOB} on record"),
        ([(404, {})], 0, "whether there is such a job is not known"),
        ([(503, {"title": "Service Unavailable"})], 0, "whether there is such a job is not known"),
    ],
)
def test_the_cancellation_of_an_unknown_job_fails(
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[tuple[int, dict[str, Any]]],
    code: int,
    said: str,
) -> None:
    """Entry 20. It is published in any case: it can come before its request."""
    published: list[Event] = []

    async def publish(_: Publisher, event: Event) -> None:
        published.append(event)

    monkeypatch.setattr(Publisher, "publish", publish)
    is_found = answers[-1][0] == 200
    monkeypatch.setattr(job_commands, "EXISTENCE_SECONDS", 30.0 if is_found else 0.1)
    monkeypatch.setattr(job_commands, "INTERVAL", 0.01)
    for status, document in answers:
        server.add(PATH, status, document)
    result = CliRunner().invoke(cli, ["cancel", str(JOB), "--api-url", server.url, "--token", "t"])
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert [(event.type, event.job_id) for event in published] == [(EventType.CANCEL_REQUESTED, JOB)]


@pytest.mark.parametrize("token", ["", "a\nb"])
def test_a_cancellation_with_a_token_that_cannot_be_sent_is_published_and_in_doubt(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """The token is only for the question whether there is such a job."""
    published: list[Event] = []

    async def publish(_: Publisher, event: Event) -> None:
        published.append(event)

    monkeypatch.setattr(Publisher, "publish", publish)
    command = ["cancel", str(JOB), "--api-url", server.url, "--token", token]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert (
        f"Cancellation requested: {JOB} (whether there is such a job is not known: the token" in result.stderr
    )
    result = CliRunner().invoke(cli, [*command, "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["export_job_id"], answer["status"]) == (str(JOB), "cancel_requested")
    assert "the token for the API" in answer["doubt"]
    assert [event.job_id for event in published] == [JOB, JOB]
    assert server.seen == []


@pytest.mark.parametrize("error", [UsageError("u"), Rejected("r"), BadSettings("b")], ids=repr)
def test_an_error_of_usage_has_the_job_with_json(
    monkeypatch: pytest.MonkeyPatch, error: ExporterError
) -> None:
    async def publish(_: Publisher, event: Event) -> None:
        error.job_id = event.job_id
        raise error

    monkeypatch.setattr(Publisher, "publish", publish)
    result = CliRunner().invoke(cli, ["cancel", str(JOB), "--json"])
    assert result.exit_code == 2, result.output
    assert json.loads(result.stderr)["error"]["export_job_id"] == str(JOB)


def test_a_job_is_followed_from_unknown_to_completed(server: FakeServer, api: Client) -> None:
    server.add(PATH, 404, NOT_FOUND)
    server.add(PATH, 200, record("pending"))
    server.add(PATH, 503, {"title": "Service Unavailable"})
    server.add(PATH, 200, record("processing", row_count=5, estimated_rows=9))
    server.add(PATH, 200, record("completed", row_count=9))
    job, seen = watch(api)
    assert seen == ["unknown", "pending", "processing", "completed"]
    assert job.row_count == 9
    assert server.seen[0][1]["Authorization"] == "Bearer the-token"


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_a_job_without_a_file_is_an_error(server: FakeServer, api: Client, status: str) -> None:
    server.add(PATH, 200, record(status, error={"code": "unknown_column", "message": "filters.x: no"}))
    with pytest.raises(JobEnded, match=rf"{status}: filters.x: no \(unknown_column\)"):
        watch(api)


def test_a_request_that_no_worker_admits_times_out(api: Client) -> None:
    with pytest.raises(ApiError, match=re.escape("is running (exporter worker)")):
        watch(api, admission_seconds=0.05)


def test_an_outage_of_the_api_has_a_time_out(server: FakeServer, api: Client) -> None:
    server.add(PATH, 503, {"title": "Service Unavailable", "detail": "away"})
    with pytest.raises(ApiError, match="away"):
        watch(api, outage_seconds=0.05)


def test_a_job_that_was_seen_and_is_unknown_for_a_moment_is_followed_on(
    server: FakeServer, api: Client
) -> None:
    """A proxy answers 404 while the API behind it is away, also long after the time of the admission."""
    server.add(PATH, 200, record("processing"))
    server.add(PATH, 404, b"default backend - 404")
    server.add(PATH, 404, b"default backend - 404")
    server.add(PATH, 200, record("completed"))
    job, seen = watch(api, admission_seconds=0)
    assert (job.status, seen) == ("completed", ["processing", "completed"])


def test_a_job_that_was_seen_and_stays_unknown_is_an_error(server: FakeServer, api: Client) -> None:
    server.add(PATH, 200, record("processing"))
    server.add(PATH, 404, NOT_FOUND)
    with pytest.raises(ApiError, match=r"does not know the job .* any more"):
        watch(api, outage_seconds=0.05)


@pytest.mark.parametrize("status", [200, 302])
def test_a_foreign_answer_ends_the_watch_only_if_the_job_was_not_seen_or_if_it_stays(
    server: FakeServer, api: Client, status: int
) -> None:
    """A proxy answers with a page of its own, or leads to one, while the API behind it is away."""
    foreign = (PATH, status, b"<html>")
    server.add(PATH, 200, record("processing"))
    server.add(*foreign, Location="https://login.example/")
    server.add(PATH, 200, record("completed"))
    assert watch(api)[1] == ["processing", "completed"]
    server.answers.clear()
    server.add(*foreign)
    with pytest.raises(ApiError, match="does not answer as the exporter's API does"):
        watch(api)
    assert len(server.seen) == 4
    server.answers.clear()
    server.add(PATH, 200, record("processing"))
    server.add(*foreign)
    with pytest.raises(ApiError, match="does not answer as the exporter's API does"):
        watch(api, outage_seconds=0.05)
    assert len(server.seen) > 6


def test_a_proxy_that_does_not_find_the_api_is_an_outage(server: FakeServer, api: Client) -> None:
    """It is no word on the job, which the service can have admitted."""
    server.add(PATH, 404, b"default backend - 404")
    server.add(PATH, 200, record("completed"))
    assert watch(api, admission_seconds=0)[1] == ["completed"]
    server.answers.clear()
    server.add(PATH, 404, b"default backend - 404")
    with pytest.raises(ApiError, match="does not answer as the exporter's API does"):
        watch(api, outage_seconds=0.05)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_can_pass_does_not_end_the_watch(server: FakeServer, api: Client, status: int) -> None:
    server.add(PATH, status, {"title": "later"})
    server.add(PATH, 200, record("processing"))
    server.add(PATH, status, {"title": "later"})
    server.add(PATH, 200, record("completed"))
    assert watch(api)[1] == ["processing", "completed"]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between calls. The clock only moves with them."""
    clock, made = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        made.append(seconds)

    fake = SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    monkeypatch.setattr(job_commands, "time", fake)
    return made


def test_the_time_that_the_api_asks_for_is_waited_and_is_no_outage(
    server: FakeServer, api: Client, pauses: list[float]
) -> None:
    for _ in range(3):
        server.add(PATH, 429, {"title": "later"}, **{"Retry-After": "20"})
    server.add(PATH, 429, {"title": "later"}, **{"Retry-After": "86400"})
    server.add(PATH, 200, record("completed"))
    assert watch(api)[1] == ["completed"]
    assert pauses == [20, 20, 20, 60]


@pytest.mark.parametrize(("asked", "made"), [("5", [5, 5, 5, 5]), ("20", [20, 20, 20]), ("86400", [60] * 3)])
def test_an_outage_that_asks_for_pauses_has_a_time_out(
    server: FakeServer, api: Client, pauses: list[float], asked: str, made: list[float]
) -> None:
    server.add(PATH, 503, {"title": "Service Unavailable", "detail": "away"}, **{"Retry-After": asked})
    with pytest.raises(ApiError, match="away"):
        watch(api)
    assert pauses == made


def test_a_refused_token_is_not_tried_again(server: FakeServer, api: Client) -> None:
    server.add(PATH, 401, {"title": "Unauthorized", "detail": "The token has expired"})
    with pytest.raises(ApiError, match="expired; pass a token as --token"):
        watch(api)
    assert len(server.seen) == 1


def test_a_server_that_is_not_the_api_is_named(server: FakeServer, api: Client) -> None:
    server.add(PATH, 200, b"<html>")
    with pytest.raises(ApiError, match="does not answer as the exporter's API does"):
        watch(api)


def test_downloads_under_the_files_name(server: FakeServer, api: Client, tmp_path: Path) -> None:
    finished(server)
    steps: list[tuple[int, int]] = []
    path = fetch(api, JOB, tmp_path / "new", lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "new" / "ledger.csv"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert path.stat().st_mode & 0o444 == 0o444


def test_the_token_is_not_sent_to_the_store(server: FakeServer, api: Client, tmp_path: Path) -> None:
    finished(server)
    fetch(api, JOB, tmp_path)
    [headers] = [headers for path, headers in server.seen if path.startswith("/store/")]
    assert "Authorization" not in headers


def test_a_name_cannot_leave_the_folder(server: FakeServer, api: Client, tmp_path: Path) -> None:
    finished(server, file_name="../../evil.csv")
    assert fetch(api, JOB, tmp_path / "here") == tmp_path / "here" / "evil.csv"


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"bytes": 7}])
def test_a_damaged_file_is_not_kept(
    server: FakeServer, api: Client, tmp_path: Path, changes: dict[str, Any]
) -> None:
    finished(server, **changes)
    (tmp_path / "ledger.csv").write_text("the one before")
    with pytest.raises(DownloadError, match="was damaged on the way"):
        fetch(api, JOB, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the one before"]


def test_a_broken_connection_is_not_kept(server: FakeServer, api: Client, tmp_path: Path) -> None:
    server.add("/store/file?signature=x", 200, CONTENT, **{"Content-Length": "9999"})
    finished(server)
    with pytest.raises(DownloadError, match="did not deliver"):
        fetch(api, JOB, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_refuses(server: FakeServer, api: Client, tmp_path: Path) -> None:
    server.add("/store/file?signature=x", 403, b"<Error/>")
    finished(server)
    with pytest.raises(DownloadError, match="answered 403"):
        fetch(api, JOB, tmp_path)


def test_watch_command_downloads(server: FakeServer, tmp_path: Path) -> None:
    finished(server)
    result = CliRunner().invoke(cli, ["watch", str(JOB), "--api-url", server.url, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "1 rows, 16 B, sha256 verified" in result.stderr
    assert (tmp_path / "ledger.csv").read_bytes() == CONTENT


def test_watch_command_prints_the_warnings_of_the_file(server: FakeServer) -> None:
    """people A3."""
    server.add(PATH, 200, record("completed", row_count=1, warnings={"replaced_characters": 48_241}))
    result = CliRunner().invoke(cli, ["watch", str(JOB), "--api-url", server.url])
    assert result.exit_code == 0, result.output
    assert "warning: 48,241 characters could not be printed" in result.stderr


def test_a_single_file_of_an_old_api_replaces_nothing(
    server: FakeServer, api: Client, tmp_path: Path
) -> None:
    """people A10."""
    finished(server)
    (tmp_path / "ledger.csv").write_text("mine")
    assert fetch(api, JOB, tmp_path).name == "ledger (2).csv"
    assert fetch(api, JOB, tmp_path).name == "ledger (2).csv"
    assert fetch(api, JOB, tmp_path, overwrite=True).name == "ledger.csv"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "ledger.csv": CONTENT,
        "ledger (2).csv": CONTENT,
    }


def test_watch_command_fails_with_the_job(server: FakeServer) -> None:
    server.add(PATH, 200, record("failed", error={"code": "timeout", "message": "took too long"}))
    result = CliRunner().invoke(cli, ["watch", str(JOB), "--api-url", server.url])
    assert result.exit_code == 1
    assert result.stderr.endswith("failed: took too long (timeout)\n")


def test_status_command_prints_json(server: FakeServer) -> None:
    server.add(PATH, 200, record("pending"))
    result = CliRunner().invoke(cli, ["status", str(JOB), "--api-url", server.url, "--token", "t"])
    assert result.exit_code == 0
    assert '"status": "pending"' in result.stdout
    assert server.seen[0][1]["Authorization"] == "Bearer t"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_status_command_has_the_delivery_to_the_destination(server: FakeServer, options: list[str]) -> None:
    sent = {"channel": "destination", "address": "acme", "status": "sent", "path": "in/ledger.csv"}
    mail = {"channel": "mail", "address": "ada@example.com", "status": "sent"}
    for deliveries in ([mail, sent], [mail]):
        server.add(PATH, 200, record("completed", destination="acme"))
        server.add(f"{PATH}/deliveries", 200, {"deliveries": deliveries})
    server.add(PATH, 200, record("completed", destination=None))
    found = []
    for _ in range(3):
        result = CliRunner().invoke(
            cli, ["status", str(JOB), "--api-url", server.url, "--token", "t", *options]
        )
        assert result.exit_code == 0
        found.append(json.loads(result.stdout))
    assert [job.get("delivery", "none") for job in found] == [sent, None, "none"]
    assert found[0]["destination"] == "acme"


def test_a_token_is_read_from_a_file_or_standard_input(server: FakeServer, tmp_path: Path) -> None:
    """S24"""
    for _ in range(2):
        server.add(PATH, 200, record("pending"))
    (tmp_path / "token").write_text("from-a-file\n")
    asked = ["status", str(JOB), "--api-url", server.url, "--token"]
    assert CliRunner().invoke(cli, [*asked, f"@{tmp_path}/token"]).exit_code == 0
    assert CliRunner().invoke(cli, [*asked, "-"], input="from-stdin\n").exit_code == 0
    sent = [headers["Authorization"] for _, headers in server.seen]
    assert sent == ["Bearer from-a-file", "Bearer from-stdin"]
    for wrong in (f"@{tmp_path}/none", f"@{tmp_path}"):
        result = CliRunner().invoke(cli, [*asked, wrong])
        assert result.exit_code == 2
        assert "cannot be read" in result.stderr


@pytest.mark.parametrize(("command", "role"), [("status", "exports:operate"), ("watch", "exports:operate")])
def test_a_command_that_only_reads_signs_no_administrator_token(
    server: FakeServer, command: str, role: str
) -> None:
    """S24"""
    server.add(PATH, 200, record("cancelled"))
    CliRunner().invoke(cli, [command, str(JOB), "--api-url", server.url])
    token = server.seen[0][1]["Authorization"].removeprefix("Bearer ")
    content = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    assert claims["roles"] == [role]


def test_few_lines_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines()
    for job in (
        None,
        None,
        record("pending"),
        record("processing", row_count=1),
        record("processing", row_count=2),
        record("completed", row_count=9),
    ):
        shown.job(Job.model_validate(job) if job else None)
    shown.download(1, 2)
    shown.download(2, 2)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for a worker",
        "pending",
        "processing, 1 rows",
        "completed, 9 rows",
        "downloaded 2 B",
    ]


def test_the_bar_shows_every_kind_of_job(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as shown:
        shown.job(None)
        shown.job(Job.model_validate(record("processing")))
        shown.job(Job.model_validate(record("processing", row_count=12, estimated_rows=10)))
        shown.job(Job.model_validate(record("completed", row_count=0)))
        shown.download(0, 0)
        shown.download(5, 10)
    assert "ledger csv: completed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (24_800_000, "24.8 MB"), (5e15, "5000.0 TB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text
