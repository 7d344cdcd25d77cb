"""The commands of the outbox say what is wrong with its database in words of the service."""

import re
import sqlite3
import ssl
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from streaming_exporter.errors import BadSettings, ExporterError, Retryable
from streaming_exporter.outbox.__main__ import main
from streaming_exporter.outbox.database_failures import failure_of
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore
from tests.rows import each_row

PASSWORD = "ssw0rd"
OF_A_DRIVER = re.compile(
    r"sqlite3\.|SQL:|Background on|psycopg\.|asyncpg\.|base 10|unexpected keyword|no such table|Traceback"
)
UNUSABLE = "the URL of the outbox's database cannot be used"
UNREACHABLE = "cannot be reached or refuses the connection"
URLS = {
    "sqlite:///{}/empty.db": (1, "has no table exporter_outbox; `python -m streaming_exporter.outbox ddl`"),
    "sqlite:///{}/absent/x.db": (1, UNREACHABLE),
    f"postgresql+psycopg://user:{PASSWORD}/d": (2, UNUSABLE),
    "postgresql+psycopg://u@h:bad/d": (2, UNUSABLE),
    "postgresql+absent://u@h/d": (2, f"{UNUSABLE} (SQLAlchemy does not know its dialect or driver)"),
    "mysql+pymysql://u@h/d": (2, f"{UNUSABLE} (its driver is not installed: pymysql)"),
    "nowhere": (2, UNUSABLE),
    "postgresql+psycopg://u:secret@127.0.0.1:1/d": (1, f"(127.0.0.1:1) {UNREACHABLE}"),
    "postgresql+psycopg://u@127.0.0.1:99999/d": (1, UNREACHABLE),
    "postgresql+asyncpg://u:secret@127.0.0.1:1/d": (1, f"(127.0.0.1:1) {UNREACHABLE}"),
    "postgresql+asyncpg://u@127.0.0.1:99999/d": (2, "does not accept the URL"),
    "postgresql+asyncpg://u@127.0.0.1:1/d?sslmode=require": (2, "the options after the question mark"),
}


@pytest.mark.parametrize("command", [["status"], ["relay", "--once"]])
@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_a_command_says_what_is_wrong_with_its_database(
    url: str,
    expected: tuple[int, str],
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, words = expected
    assert main([*command, "--database-url", url.format(tmp_path)]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "secret" not in said
    assert PASSWORD not in said
    assert not OF_A_DRIVER.search(said)


class OfDriver(Exception):
    """An error as drivers have them: with an SQLSTATE, or with a number as its first argument."""

    def __init__(self, *arguments: object, sqlstate: str | None = None) -> None:
        super().__init__(*arguments)
        self.sqlstate = sqlstate


class OperationalDriverError(OfDriver):
    """The same, of the class for which the database is the reason."""


OperationalDriverError.__name__ = "OperationalError"
LEAK = "the text of the driver"


@each_row(
    ("error", "words"),
    [
        (OfDriver(LEAK, sqlstate="42P01"), "has no table exporter_outbox; do this"),
        (OfDriver(1146, LEAK), "has no table exporter_outbox; do this"),
        (sqlite3.OperationalError("no such table: exporter_outbox"), "has no table exporter_outbox; do this"),
        (OfDriver(LEAK, sqlstate="28P01"), "refuses the relay; check the user, the password"),
        (OfDriver(LEAK, sqlstate="3D000"), "refuses the relay; check the user, the password"),
        (OfDriver(LEAK, sqlstate="42501"), "refuses the relay; check the user, the password"),
        (OperationalDriverError(1045, LEAK), "refuses the relay; check the user, the password"),
        (OperationalDriverError(LEAK), UNREACHABLE),
        (OperationalDriverError(LEAK, sqlstate="57P01"), UNREACHABLE),
        (OperationalDriverError(LEAK, sqlstate="40001"), "refused a statement of the relay (40001)"),
        (ConnectionRefusedError(LEAK), UNREACHABLE),
        (ssl.SSLCertVerificationError(LEAK), "has no TLS that the relay accepts"),
        (TimeoutError(LEAK), "does not answer in time"),
        (OfDriver(LEAK, sqlstate="25006"), "refused a statement of the relay (25006)"),
        (OfDriver(LEAK), "refused a statement of the relay (OfDriver)"),
    ],
)
def test_each_kind_of_failure_has_words(error: Exception, words: str) -> None:
    wrapped = ProgrammingError("SELECT 1", {}, error)
    caused = RuntimeError(LEAK)
    caused.__cause__ = error
    for one in (error, wrapped, caused):
        text = str(failure_of(one, place="h:1", creation="do this"))
        assert words in text
        assert text.startswith("the database of the outbox (h:1) ")
        assert LEAK not in text
        assert "SELECT" not in text


def test_a_connection_that_sqlalchemy_reports_as_lost_is_an_outage() -> None:
    assert UNREACHABLE in str(
        failure_of(OperationalError("SELECT 1", {}, OfDriver(LEAK)), place="", creation="")
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ssl.SSLCertVerificationError(LEAK), Retryable),
        (ConnectionResetError(LEAK), Retryable),
        (OfDriver(LEAK, sqlstate="28P01"), Retryable),
        (TypeError(LEAK), BadSettings),
        (OverflowError(LEAK), BadSettings),
    ],
    ids=repr,
)
async def test_only_a_wrong_url_ends_a_relay_for_good(
    error: Exception, expected: type[ExporterError]
) -> None:
    def connect() -> None:
        raise error

    store = SqlAlchemyStore(create_engine("sqlite://", creator=connect))
    with pytest.raises(ExporterError) as caught:
        await store.backlog()
    await store.close()
    assert isinstance(caught.value, expected)
    assert LEAK not in str(caught.value)
