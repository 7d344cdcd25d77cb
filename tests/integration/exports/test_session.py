"""A file does not depend on the configuration of the role, the database, the server or a pooler."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from stream_app.datasets.models import Dataset
from stream_app.db.engine import connect_to
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.errors import SessionEnded
from stream_app.exports.sources.session import PINNED, PINNED_ON_LINUX, begin_script
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from stream_app.foreign_parameters import FOREIGN, IGNORED
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.poolers import POOLERS, through, through_door
from tests.waiting import at_most

HOSTILE = {
    "DateStyle": "'German, DMY'",
    "IntervalStyle": "postgres_verbose",
    "TimeZone": "'Asia/Kathmandu'",
    "timezone_abbreviations": "'India'",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "extra_float_digits": "-10",
    "lc_monetary": "'C.UTF-8'",
    "lc_numeric": "'C.UTF-8'",
    "lc_time": "'C.UTF-8'",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
    "xmloption": "document",
    "array_nulls": "off",
    "backslash_quote": "on",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "gin_fuzzy_search_limit": "1",
    "row_security": "off",
    "synchronize_seqscans": "on",
    "exit_on_error": "on",
    "restrict_nonsystem_relation_kind": "'view'",
    "transaction_timeout": "'200ms'",
    "statement_timeout": "'200ms'",
    "lock_timeout": "'200ms'",
    "idle_in_transaction_session_timeout": "'200ms'",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "default_transaction_read_only": "on",
    "search_path": "nowhere",
    "tcp_user_timeout": "'1ms'",
    "client_connection_check_interval": "0",
}
"""Another value, with which a role can be configured, for each setting that transactions set."""

HARMLESS = {
    line
    for line in Path(__file__).with_name("harmless_settings.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
}

TABLE = """
CREATE TABLE kinds (
    id int PRIMARY KEY, at timestamptz, day date, span interval, data bytea, f8 float8, f4 float4, pay money,
    cls regclass, words text[], nothing text, ts timestamp, nested bytea[]
);
INSERT INTO kinds SELECT n, '2026-01-31 23:30+00', '2026-02-01', '1 year 2 mons -3 days 04:05:06.7',
    '\\x00ff5c', 1.0 / 3, 1.0 / 3, -1234.5, 'kinds', ARRAY['NULL', NULL, 'ü'], NULL,
    '2026-01-31 23:30', ARRAY['\\xff'::bytea]
FROM generate_series(1, 50) n;
"""


Files = Callable[..., Awaitable[dict[str, str]]]


@dataclass(frozen=True)
class Reader:
    """A separate role for the test, and its URL."""

    name: str
    url: str


@pytest.fixture
async def reader(database: asyncpg.Connection, source_dsn: str, schema: str) -> AsyncIterator[Reader]:
    name = f"reader_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    head, _, tail = source_dsn.partition("@")
    assert head.startswith("postgresql://")
    yield Reader(name, f"postgresql://{name}:secret@{tail}")
    await database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
async def files(storage: ObjectStore, settings: Settings, exporter_of: Callable[..., Exporter]) -> Files:
    """Returns the sha256 of a table's files in some formats, exported with the role of a URL."""

    async def export(url: str, table: str, *names: str) -> dict[str, str]:
        own = settings.model_copy(update={"source_database_url": SecretStr(url)})
        source = Source(own, connections=2)
        try:
            exporter = exporter_of(
                Dataset(name="kinds", table=table), sources=source, catalog=Catalog(source)
            )
            found = {}
            for name in names:
                request = ExportRequest(user_id="u", export_type="kinds", format=name, scope="all")
                found[name] = (await exporter.run(task_for(request), ExportProgress())).sha256
            return found
        finally:
            await source.close()

    return export


async def test_every_setting_of_a_role_that_could_change_a_file(
    database: asyncpg.Connection, schema: str, reader: Reader, files: Files
) -> None:
    """P3, P1: with another value of each setting the bytes are the same, and no export fails."""
    await database.execute(TABLE)
    await database.execute("CREATE VIEW slow AS SELECT 1 AS id, pg_sleep(0.3)::text AS nap")
    formats = ("csv", "ndjson")
    wanted = await files(reader.url, f"{schema}.kinds", *formats)
    known = set(await database.fetchval("SELECT array_agg(name) FROM pg_settings"))
    for name, value in HOSTILE.items():
        if name in known:
            await database.execute(f"ALTER ROLE {reader.name} SET {name} = {value}")
    assert await files(reader.url, f"{schema}.kinds", *formats) == wanted
    assert await files(reader.url, f"{schema}.slow", "csv")


def test_every_pinned_setting_is_tried() -> None:
    assert {*PINNED, *PINNED_ON_LINUX} <= set(HOSTILE)


async def test_every_setting_of_the_server_is_listed(database: asyncpg.Connection) -> None:
    """P3: the test fails for a setting of a role that is neither pinned nor listed as harmless."""
    names = await database.fetchval(
        "SELECT array_agg(name::text) FROM pg_settings WHERE context IN ('user', 'superuser')"
    )
    seen = {*HOSTILE, *HARMLESS, *PINNED, *PINNED_ON_LINUX}
    assert sorted(set(names) - seen) == []
    assert (FOREIGN.keys() | IGNORED) & set(names) == set(), "P4: a URL can have it"


async def test_a_transaction_leaves_nothing_behind(source: Source) -> None:
    """P1: the settings of an export end with it, because a pooler gives its session to other clients."""
    show = "SELECT string_agg(name || '=' || setting, ', ') FROM pg_settings WHERE source = 'session'"
    async with source.snapshot("exporter x") as snapshot:
        connection = snapshot.connection
        assert "exporter x" in await connection.fetchval("SHOW application_name")
        await snapshot.end()
        assert await connection.fetchval(show) is None


@pytest.mark.parametrize("kind", POOLERS)
async def test_behind_a_pooler(
    kind: str,
    database: asyncpg.Connection,
    schema: str,
    reader: Reader,
    files: Files,
) -> None:
    """P1: transaction pooling in its default configuration; the bytes are those of a direct connection."""
    await database.execute(TABLE)
    formats = ("csv", "ndjson")
    wanted = await files(reader.url, f"{schema}.kinds", *formats)
    async with through(kind, reader.url) as url:
        leftover = await asyncpg.connect(url, statement_cache_size=0)
        await leftover.execute("SET intervalstyle = postgres; SET timezone = 'Asia/Kathmandu'")
        found = await asyncio.gather(*(files(url, f"{schema}.kinds", *formats) for _ in range(4)))
        await leftover.close()
    assert found == [wanted] * 4


async def test_a_parameter_that_a_pooler_refuses_is_no_outage(
    reader: Reader, settings: Settings, schema: str
) -> None:
    """P1, P4: jobs must not wait for days for a configuration that cannot work."""
    async with through_door(reader.url) as url:
        source = Source(
            settings.model_copy(update={"source_database_url": SecretStr(f"{url}?options=-cjit%3Doff")}),
            connections=1,
        )
        with pytest.raises(Rejected, match="parameter of its URL") as raised:
            await source.fetch("SELECT 1")
        await source.close()
    assert raised.value.code == "source_misconfigured"


@pytest.mark.parametrize("by", ["an operator", "a proxy"])
async def test_a_session_that_is_ended_during_copy_is_an_outage_that_says_so(
    source: Source, database: asyncpg.Connection, by: str
) -> None:
    """R11, P3: later errors of a lost connection do not hide the reason, and its age is known."""

    async def sink(_: bytes) -> None:
        if by == "an operator":
            await database.execute("SELECT pg_terminate_backend($1)", snapshot.connection.get_server_pid())
        else:
            snapshot.connection._transport.abort()

    with pytest.raises(
        SessionEnded, match=r"the session was ended: .*; the session was [0-9]+ s old"
    ) as raised:
        async with source.snapshot("exporter terminated") as snapshot:
            await snapshot.copy("SELECT repeat('x', 1000) FROM generate_series(1, 300000)", {}, sink)
    assert raised.value.code == "session_ended"


async def test_the_transaction_ends_with_the_last_row(
    database: asyncpg.Connection,
    schema: str,
    exporter_of: Callable[..., Exporter],
    settings: Settings,
    source_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R11: while a slow store receives the rest of a file, no transaction is open."""
    monkeypatch.setattr(
        "stream_app.exports.reading.row_estimate.ESTIMATE_AFTER", 60
    )  # on a connection of its own
    await database.execute("CREATE TABLE few AS SELECT 1 AS id")
    left: list[int] = []

    class Slow(ObjectStore):
        def put(self, key: str, chunks: object, **known: object) -> object:  # type: ignore[override]
            content = list(chunks)  # type: ignore[call-overload]
            left.append(asyncio.run(open_transactions()))
            return super().put(key, iter(content), **known)  # type: ignore[arg-type]

    claimed = task_for(ExportRequest(user_id="u", export_type="few", format="csv", scope="all"))
    seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"  # it ends with the transaction

    async def open_transactions() -> int:
        other = await asyncpg.connect(source_dsn)
        try:
            async with at_most(30):
                while found := await other.fetchval(seen, f"exporter {claimed.name}"):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.02)
                return int(found)
        finally:
            await other.close()

    exporter = exporter_of(Dataset(name="few", table=f"{schema}.few"), storage=Slow(settings))
    assert (await exporter.run(claimed, ExportProgress())).row_count == 1
    assert left == [0]


def test_names_in_the_script_are_quoted() -> None:
    script = begin_script("exporter it's", statement_seconds=1.5, search_path=['a"b', "Shop"])
    assert '"a""b", "Shop"' in script
    assert "exporter it''s" in script
    assert "'1500'" in script


async def test_a_silently_lost_peer_is_noticed(source: Source) -> None:
    """R11: a server that no longer answers must not delay an export for hours."""
    async with source.snapshot("exporter alive") as snapshot:
        opened = snapshot.connection._con._transport.get_extra_info("socket")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0


async def test_settings_in_the_url_reach_the_server(settings: Settings) -> None:
    """By their names, or in ``options``."""
    query = "search_path=elsewhere&jit=off&statement_timeout=77s&options=-c%20work_mem%3D5MB"

    def extended(url: str) -> SecretStr:
        return SecretStr(f"{url}{'&' if '?' in url else '?'}{query}")

    changed = settings.model_copy(
        update={
            "database_url": extended(settings.database_url.get_secret_value()),
            "source_database_url": extended(settings.source_dsn),
        }
    )
    shown = ("search_path", "jit", "statement_timeout", "work_mem")
    for connection in (
        await connect_to(changed, application="test"),
        await asyncpg.connect(changed.source_dsn),
    ):
        values = [await connection.fetchval(f"SHOW {name}") for name in shown]
        await connection.close()
        assert values == ["elsewhere", "off", "77s", "5MB"]
