"""`exporter dead-letters redrive` publishes nothing that was discarded while the marks cannot be read."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

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
