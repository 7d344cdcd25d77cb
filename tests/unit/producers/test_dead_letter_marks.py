"""`exporter dead-letters redrive` publishes nothing that was discarded while the marks cannot be read.

A dry run finds the mark of each letter, however many were written at the same time.
"""

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from typer.testing import CliRunner

from producers import dead_letter_topic
from producers.__main__ import cli
from producers.dead_letter_topic import DeadLetter, Selection
from streaming_exporter.publisher import Publisher
from tests.unit.producers.fake_server import FakeServer

PATH = "/exports/dead-letters:redrive"
LETTERS = [
    DeadLetter((0, number), datetime.now(UTC), None, b"{}", (), "bad", "exports.requests", "0", "1", None)
    for number in range(3)
]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics of all messages that the command publishes itself."""
    topics: list[str] = []

    async def read(_: Any, selection: Selection) -> AsyncGenerator[DeadLetter, None]:
        for letter in LETTERS:
            if selection.has(letter):
                yield letter

    async def publish_raw(_: Publisher, topic: str, *__: Any) -> None:
        topics.append(topic)

    monkeypatch.setattr(dead_letter_topic, "read", read)
    monkeypatch.setattr(Publisher, "publish_raw", publish_raw)
    return topics


def redrive(url: str, *options: str) -> Any:
    command = ["dead-letters", "redrive", "--api-url", url, "--token", "t", *options]
    return CliRunner().invoke(cli, command)


AWAY = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "chosen", [["--all"], ["--since", "1h"], ["--error", "bad"], ["--topic", "exports.requests"]]
)
@pytest.mark.parametrize("status", [None, 404, 405])
def test_without_an_api_a_redrive_without_ids_needs_again(
    server: FakeServer, published: list[str], chosen: list[str], status: int | None
) -> None:
    server.add(PATH, status or 404, {"title": "no"})
    url = server.url if status else AWAY
    result = redrive(url, *chosen)
    assert result.exit_code == 2, result.output
    assert "the marks cannot be read: " in result.stderr
    assert "--again publishes all the same" in result.stderr
    assert published == []


@pytest.mark.parametrize(("chosen", "count"), [(["--all", "--again"], 3), (["0:1", "0:2"], 2)])
def test_without_an_api_letters_that_were_asked_for_are_published(
    published: list[str], chosen: list[str], count: int
) -> None:
    result = redrive(AWAY, *chosen)
    assert result.exit_code == 0, result.output
    assert "Published without a mark" in result.stderr
    assert published == ["exports.requests"] * count


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
@pytest.mark.parametrize("chosen", [["--all"], ["--all", "--again"], ["0:1"]])
def test_an_api_that_refuses_is_an_error(
    server: FakeServer, published: list[str], chosen: list[str], status: int
) -> None:
    server.add(PATH, status, {"title": "no", "detail": "The API refuses"})
    result = redrive(server.url, *chosen)
    assert result.exit_code == 1, result.output
    assert "The API refuses" in result.stderr
    assert published == []


def test_an_api_that_goes_away_ends_the_command(server: FakeServer, published: list[str]) -> None:
    """The first letter was discarded, which the API says. The next call meets no API."""
    server.add(PATH, 200, {"results": [{"problem": "it was discarded by ada"}]})
    server.add(PATH, 404, {"title": "no"})
    result = redrive(server.url, "--all")
    assert result.exit_code == 2, result.output
    assert "it was discarded by ada" in result.stdout
    assert published == []


MARK = {"state": "discarded", "handled_by": "ada", "handled_at": "2026-11-24T06:00:00+00:00"}
NO_MARK = {"state": "new", "handled_by": None, "handled_at": None}


def listed(at: datetime, numbers: range) -> dict[str, Any]:
    letters = [{"id": f"1:{number}", "at": at.isoformat(), **NO_MARK} for number in numbers]
    return {"total": len(letters), "dead_letters": letters}


def add_list(server: FakeServer, letter: DeadLetter, count: int) -> None:
    """Let the API list ``count`` other letters of the millisecond of ``letter``."""
    span = {"since": letter.at, "until": letter.at + timedelta(milliseconds=1)}
    query = urlencode({name: at.isoformat() for name, at in span.items()} | {"limit": 500})
    server.add(f"/exports/dead-letters?{query}", 200, listed(letter.at, range(count)))


@pytest.mark.parametrize(
    ("mark", "problem"), [(MARK, "it was discarded by ada at 2026-11-24 06:00:00Z"), (NO_MARK, None)]
)
def test_a_dry_run_finds_a_letter_of_more_than_a_list_has(
    server: FakeServer, published: list[str], mark: dict[str, Any], problem: str | None
) -> None:
    add_list(server, LETTERS[1], 500)
    one = {"id": "0:1", "at": LETTERS[1].at.isoformat(), **mark}
    server.add("/exports/dead-letters/0:1", 200, one)
    result = redrive(server.url, "0:1", "--dry-run", "--json")
    assert json.loads(result.stdout)["problem"] == problem, result.output
    assert result.exit_code == (1 if problem else 0)
    assert published == []


@pytest.mark.parametrize("count", [499, 500])
@pytest.mark.parametrize("at", [None, "2026-11-24T06:00:00+00:00"])
def test_a_dry_run_refuses_a_letter_that_the_api_does_not_have(
    server: FakeServer, published: list[str], count: int, at: str | None
) -> None:
    """The API reads another cluster, which has no letter of this id, or one of another time."""
    add_list(server, LETTERS[1], count)
    if at is not None:
        server.add("/exports/dead-letters/0:1", 200, {"id": "0:1", "at": at, **NO_MARK})
    result = redrive(server.url, "0:1", "--dry-run")
    assert result.exit_code == 1, result.output
    assert "there is no such dead letter" in result.stdout
    assert published == []


def test_a_dry_run_ends_if_the_api_refuses_to_read_a_letter(server: FakeServer, published: list[str]) -> None:
    add_list(server, LETTERS[1], 500)
    server.add("/exports/dead-letters/0:1", 503, {"title": "no", "detail": "The API refuses"})
    result = redrive(server.url, "0:1", "--dry-run")
    assert result.exit_code == 1, result.output
    assert "The API refuses" in result.stderr
    assert "no such dead letter" not in result.stdout
    assert published == []
