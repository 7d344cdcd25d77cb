"""`exporter dead-letters redrive` publishes nothing that was discarded while the marks cannot be read.

A dry run finds the mark of each letter, however many were written at the same time. `list` finds the state
of each letter, however many newer ones the API lists.
"""

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from typer.testing import CliRunner

from producers import dead_letter_api, job_commands
from producers import redrive as redriving
from producers.__main__ import cli
from stream_app.kafka import dead_letter_topic
from stream_app.kafka.dead_letter_topic import DeadLetter, Newest, Selection
from streaming_exporter.errors import ApiError
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

    monkeypatch.setattr(redriving, "read_letters", read)
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


class ScriptedApi:
    """Lists the letters of ``states`` by the filters of the API. ``fails_at`` is the call that it refuses."""

    def __init__(self, letters: list[DeadLetter], states: dict[str, str]) -> None:
        self.letters = letters
        self.states = states
        self.queries: list[dict[str, str]] = []
        self.fails_at: int | None = None

    def __enter__(self) -> "ScriptedApi":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, _: str, path: str, __: None) -> dict[str, Any]:
        query = dict(parse_qsl(urlsplit(path).query, strict_parsing=True))
        self.queries.append(query)
        if len(self.queries) == self.fails_at:
            raise ApiError("The API refuses", status=503)
        since, until = (
            datetime.fromisoformat(query[name]) if name in query else None for name in ("since", "until")
        )
        selection = Selection(since=since, until=until, topic=query.get("topic"))
        found = Newest[DeadLetter](int(query["limit"]))
        for letter in self.letters:
            if selection.has(letter) and query.get("state") in (None, self.states[letter.name]):
                found.add(letter, lambda itself: itself)
        dead_letters = [
            {"id": letter.name, "at": letter.at.isoformat(), "state": self.states[letter.name]}
            for letter in reversed(found.in_order())
        ]
        return {"total": found.number, "dead_letters": dead_letters}


START = datetime(2026, 11, 24, 6, tzinfo=UTC)
MILLISECONDS = [0, 1, 1, 2, 3, 3, 4, 9]
"""Times of letters; the first three are of one topic and new, the others of another one and discarded."""


def written(milliseconds: list[int]) -> list[DeadLetter]:
    return [
        DeadLetter(
            (number % 2, number),
            START + timedelta(milliseconds=at),
            None,
            b"{}",
            (),
            "bad" if number % 2 else "worse",
            "exports.requests" if number < 3 else "exports.ticks",
            "0",
            str(number),
            None,
        )
        for number, at in enumerate(milliseconds)
    ]


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> ScriptedApi:
    """An API that lists three letters at most, and a topic with the same letters."""
    letters = written(MILLISECONDS)
    states = {letter.name: "new" if number < 3 else "discarded" for number, letter in enumerate(letters)}
    api = ScriptedApi(letters, states)

    async def read(_: Any, selection: Selection) -> AsyncGenerator[DeadLetter, None]:
        for letter in sorted(api.letters, key=lambda letter: letter.id):
            if selection.has(letter):
                yield letter

    monkeypatch.setattr(dead_letter_topic, "read_letters", read)
    monkeypatch.setattr(dead_letter_api, "MOST", 3)
    monkeypatch.setattr(job_commands, "open_api", lambda *_, **__: api)
    return api


def listed_by_command(*options: str, code: int = 0) -> tuple[list[tuple[int, str | None]], str]:
    """Return the number and the state of each letter that `list` prints, and the lines of stderr."""
    result = CliRunner().invoke(cli, ["dead-letters", "list", "--json", *options])
    assert result.exit_code == code, result.output
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    return [(int(letter["offset"]), letter["state"]) for letter in printed], result.stderr


UNKNOWN = "the states of older letters are not known; narrow with --since or --until"


@pytest.mark.parametrize(
    ("options", "numbers", "total"),
    [
        (["--state", "discarded"], [3, 4, 5, 6, 7], "5 dead letters\n"),
        (["--state", "new"], [0, 2, 1], "3 dead letters\n"),
        (["--state", "redriven"], [], "0 dead letters\n"),
        ([], [0, 2, 1, 3, 4, 5, 6, 7], "8 dead letters\n"),
        (["--state", "discarded", "--limit", "2"], [6, 7], "5 dead letters, the oldest 3 are not shown"),
        (["--limit", "4"], [4, 5, 6, 7], "8 dead letters, the oldest 4 are not shown"),
        (["--state", "new", "--topic", "ticks"], [], "0 dead letters\n"),
        (["--state", "discarded", "--error", "worse"], [4, 6], "2 dead letters\n"),
        (["--state", "discarded", "--until", "2026-11-24T06:00:00.003Z"], [3], "1 dead letters\n"),
        (["--until", "2026-11-24T06:00:00.002Z"], [0, 2, 1], "3 dead letters\n"),
        (["--state", "discarded", "--since", "2026-11-24T06:00:00.004Z"], [6, 7], "2 dead letters\n"),
    ],
)
def test_a_list_has_all_states(
    marked: ScriptedApi, options: list[str], numbers: list[int], total: str
) -> None:
    """The letters of a millisecond are not separated, and no filter of administrators is used."""
    shown, said = listed_by_command(*options)
    assert shown == [(number, "new" if number < 3 else "discarded") for number in numbers]
    assert said.startswith(total)
    assert UNKNOWN not in said
    assert all("error" not in query for query in marked.queries)


def test_a_list_asks_the_api_only_for_what_is_shown(marked: ScriptedApi) -> None:
    listed_by_command("--limit", "1")
    [query] = marked.queries
    assert query["since"] == marked.letters[-1].at.isoformat()
    marked.queries.clear()
    listed_by_command("--state", "new", "--topic", "exports.requests", "--since", "2026-11-24T06:00:00Z")
    assert marked.queries == [
        {"limit": "3", "state": "new", "topic": "exports.requests", "since": START.isoformat()}
    ]


@pytest.mark.parametrize("until", [[], ["--until", "2026-11-24T06:00:00.007Z"]])
def test_more_letters_of_a_millisecond_than_a_list_has_are_said(
    marked: ScriptedApi, until: list[str]
) -> None:
    marked.letters = written([0, 5, 5, 5, 5])
    marked.states = dict.fromkeys((letter.name for letter in marked.letters), "new")
    shown, said = listed_by_command(*until)
    assert sorted(number for number, state in shown if state is None) == [0, 2]
    assert said.splitlines() == ["5 dead letters", UNKNOWN]
    shown, said = listed_by_command("--state", "new", *until, code=1)
    assert len(shown) == 3
    assert said.splitlines() == ["at least 3 dead letters", UNKNOWN]
    assert len(marked.queries) < 8


def test_a_list_ends_after_a_number_of_calls(marked: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_api, "MOST_LISTS", 1)
    shown, said = listed_by_command("--state", "discarded", code=1)
    assert shown == [(number, "discarded") for number in (5, 6, 7)]
    assert UNKNOWN in said
    assert len(marked.queries) == 1


def test_an_error_of_the_api_in_the_middle_gives_no_half_list(marked: ScriptedApi) -> None:
    marked.fails_at = 2
    shown, said = listed_by_command("--state", "discarded", code=1)
    assert shown == []
    assert "The API refuses" in said
    assert "dead letters" not in said
    marked.queries.clear()
    shown, said = listed_by_command()
    assert [state for _, state in shown] == [None] * 8
    assert "It is not known what was done with them: The API refuses" in said
