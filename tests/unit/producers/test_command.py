"""The parts of the `exporter` command that need no services."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from producers import console as plugins
from producers.__main__ import cli
from streaming_exporter.errors import PublishError
from streaming_exporter.events import Event, EventType
from streaming_exporter.publisher import Publisher
from tests.built_once import command_of

ORDER = ["request", "--export-type", "ledger", "--format", "csv", "--user-id", "u"]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Record every event instead of publishing it."""
    events: list[Event] = []

    async def publish(_: Publisher, event: Event) -> None:
        events.append(event)

    monkeypatch.setattr(Publisher, "publish", publish)
    return events


@pytest.fixture
def built_anew() -> Iterator[None]:
    """Build the tree of commands in this test, and again after it: other tests keep one."""
    command_of.cache_clear()
    yield
    command_of.cache_clear()


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env=environment)


COMMANDS: Any = command_of(cli)
GROUPS = [(name,) for name, command in COMMANDS.commands.items() if isinstance(command, TyperGroup)]


@pytest.mark.parametrize("group", [(), *GROUPS, ("datasets",), ("destinations",)])
def test_the_list_of_commands_fits_a_terminal(group: tuple[str, ...]) -> None:
    """The first sentence of each help is short, so that the list shows all of it."""
    lines = run(*group, "--help", COLUMNS="80").output.splitlines()
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage:")]


def test_every_command_is_in_one_section_and_those_of_other_packages_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sections = [name for section in plugins.SECTIONS.values() for name in section]
    assert sorted(sections) == sorted(COMMANDS.list_commands(typer.Context(COMMANDS)))
    assert run("--help").output.index("request") < run("--help").output.index("overview")
    monkeypatch.setitem(plugins.SECTIONS, "Exports", ())
    shown = run("--help").output
    assert shown.index("migrate") < shown.index("Further commands") < shown.index("request")


@pytest.mark.parametrize("token", [True, False])
def test_a_user_beside_a_token_of_another_user_is_told(token: bool) -> None:
    given = ["--token", run("token", "--user-id", "sam").stdout.strip()] if token else []
    away = ["--api-url", "http://127.0.0.1:1", "--user-id", "ada", *given]
    result = run("schedule", "list", *away)
    assert ("--user-id ada has no effect, because the token is one of 'sam'" in result.stderr) == token


@pytest.mark.parametrize(
    "command",
    ["request", "status", "watch", "download", "cancel", "token", "tick", "worker", "migrate", "api"],
)
def test_every_command_is_listed_and_has_help(command: str) -> None:
    assert f"  {command} " in run("--help").output
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.usefixtures("built_anew")
def test_a_package_without_its_dependencies_does_not_break_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        name = "broken"
        extras: tuple[str, ...] = ()

        def load(self) -> Any:
            raise ImportError("No module named 'parts'")

    monkeypatch.setattr(plugins, "_entries", lambda: [Broken()])
    assert run("--help").exit_code == 0
    result = run("broken")
    assert result.exit_code == 2
    assert "streaming-exporter-service[broken]" in result.output
    monkeypatch.setattr(Broken, "extras", ("many",))  # an entry point can name its extra
    assert "streaming-exporter-service[many]" in run("broken").output


def test_request_carries_every_field(published: list[Event]) -> None:
    job_id = str(uuid4())
    result = run(
        *ORDER,
        *("--filter", "kind=proof", "--filters", '{"id": {"gte": 5}}', "--columns", "id,kind"),
        *("--scope", "all", "--priority", "low", "--option", "header=false", "--compression", "gzip"),
        *("--recipient", "a@example.com", "--recipient", "b@example.com", "--job-id", job_id),
        *("--webhook", "https://hooks.example.com/x"),
        *("--labels", "--language", "de-AT", "--timezone", "Europe/Vienna", "--locale", "de-AT"),
    )
    assert (result.exit_code, result.stdout.strip()) == (0, job_id)
    [event] = published
    assert event.type is EventType.REQUESTED
    assert event.id == job_id
    assert event.data == {
        "user_id": "u",
        "export_type": "ledger",
        "format": "csv",
        "filters": {"id": {"gte": 5}, "kind": "proof"},
        "columns": ["id", "kind"],
        "options": {
            "header": False,
            "compression": "gzip",
            "headers": "labels",
            "language": "de-AT",
            "timezone": "Europe/Vienna",
            "locale": "de-AT",
        },
        "scope": "all",
        "priority": "low",
        "recipients": ["a@example.com", "b@example.com"],
        "webhook": "https://hooks.example.com/x",
    }


def test_request_leaves_out_what_was_not_given(published: list[Event]) -> None:
    result = run(*ORDER)
    assert UUID(result.stdout.strip()) == published[0].job_id
    assert published[0].data == {"user_id": "u", "export_type": "ledger", "format": "csv"}


def test_cancel(published: list[Event]) -> None:
    job_id = uuid4()
    assert run("cancel", str(job_id)).exit_code == 0
    assert (published[0].type, published[0].job_id) == (EventType.CANCEL_REQUESTED, job_id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter", "kind"], "column=value"),
        (["--scope", "my rows"], "scope"),
        (["--compression", "rar"], "expected none, gzip or zstd"),
        (["--option", "colour=red"], "allowed: title, page_size, delimiter,"),
        (["--job-id", "1"], "--job-id"),
        (["--recipient", "nobody"], "expected a mail address such as ada@example.com"),
    ],
)
def test_wrong_usage_is_explained_and_publishes_nothing(
    published: list[Event], arguments: list[str], said: str
) -> None:
    result = run(*ORDER, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert published == []


def test_an_outage_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(*_: object) -> None:
        raise PublishError("Kafka at nowhere:9092 did not take the event")

    monkeypatch.setattr(Publisher, "publish", publish)
    result = run(*ORDER)
    assert result.exit_code == 1
    assert result.stderr == "Kafka at nowhere:9092 did not take the event\n"


def test_an_unreachable_kafka_is_named() -> None:
    result = run(*ORDER, EXPORTER_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert result.exit_code == 1
    assert "Kafka at 127.0.0.1:1 did not take the event" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unreachable_api_is_named() -> None:
    result = run("status", str(uuid4()), "--api-url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "http://127.0.0.1:1 cannot be reached" in result.stderr


def test_an_invalid_setting_is_named_with_its_value_unless_it_is_a_secret() -> None:
    result = run("token", "--user-id", "u", EXPORTER_SMTP_PORT="x", EXPORTER_WEBHOOK_SECRET="secret-1")
    assert result.exit_code == 2
    assert "EXPORTER_SMTP_PORT: 'x' was read" in result.stderr
    assert "EXPORTER_WEBHOOK_SECRET: a value (not shown) was read" in result.stderr
    assert "secret-1" not in result.output


def test_token_prints_nothing_else() -> None:
    result = run("token", "--user-id", "u", "--role", "exports:all")
    assert result.exit_code == 0
    assert len(result.output.split()) == 1
    assert result.output.count(".") == 2


def test_token_signs_nothing_if_there_is_an_identity_provider() -> None:
    result = run("token", "--user-id", "u", EXPORTER_JWT_JWKS_URL="https://id.example.com/jwks")
    assert result.exit_code == 2
    assert "EXPORTER_JWT_JWKS_URL" in result.stderr
    watching = run(*ORDER, "--watch", EXPORTER_JWT_JWKS_URL="https://id.example.com/jwks")
    assert watching.exit_code == 2
    assert "EXPORTER_TOKEN" in watching.stderr
