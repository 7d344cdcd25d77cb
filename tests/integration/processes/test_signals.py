"""SIGTERM ends each command also before it has a handler, as the first process of a container."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import asyncpg
import pytest

from dev.process import free_ports
from dev.stack import Stack
from stream_app.settings import Settings
from stream_app.termination import EXIT_CODE
from tests.waiting import patient, until, until_async

ROOT = Path(__file__).parents[3]
END_SECONDS = 10.0
"""An idle machine needs one. Without a handler the process does not end."""
Connect = Callable[[], Awaitable[asyncpg.Connection]]
LOCK = 7_301_584_221
MIGRATES = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'exporter migrate' AND query ~ $1
"""


def ignore() -> None:
    """Ignore SIGTERM until there is a handler, as the kernel does for the process with the id 1."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def running(
    *arguments: str, env: Mapping[str, str], log: Path
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run a command; yield its process, and the function that returns what is on standard error."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "producers", *arguments],
            env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=errors, preexec_fn=ignore,
        )  # fmt: skip
    try:
        yield process, log.read_text
    finally:
        process.kill()
        process.communicate()


def stop(process: "subprocess.Popen[str]") -> tuple[int, float]:
    """Send SIGTERM; return the exit code, and the seconds until the end."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    return process.wait(patient(30)), time.monotonic() - began


FINALIZERS = {
    "method": "class Ends:\n    def __del__(self):\n        stop()\nEnds()",
    "weak reference": "ended = {1}\nreference = weakref.ref(ended, lambda _: stop())\ndel ended",
    "garbage collection": "gc.callbacks.append(lambda *_: stop())\ngc.collect()",
}
"""Parts of a program in which Python ignores exceptions, and in each a signal that arrives just then."""


@pytest.mark.parametrize("finalizer", FINALIZERS)
def test_a_signal_in_a_finalizer_is_not_lost(finalizer: str) -> None:
    program = f"""
import gc, os, signal, time, weakref
from stream_app.termination import exit_on_sigterm

left = [signal.SIGTERM]

def stop():
    while left:
        os.kill(os.getpid(), left.pop())

exit_on_sigterm()
{FINALIZERS[finalizer]}
assert not left
time.sleep({patient(10)})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_CODE, "")


def test_a_worker_that_waits_for_kafka_ends(stack: Stack, tmp_path: Path) -> None:
    """Its log says why it waits."""
    env = stack.environment() | {"EXPORTER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_ports(1)[0]}"}
    with running("worker", env=env, log=tmp_path / "log") as (process, errors):
        until(lambda: "call.retried" in errors(), otherwise=errors)
        assert '"worker.waiting"' in errors()
        code, seconds = stop(process)
    assert code == EXIT_CODE
    assert seconds < patient(END_SECONDS)


@pytest.fixture
async def connect(empty_settings: Settings) -> AsyncIterator[Connect]:
    """Open sessions in a database without tables."""
    async with AsyncExitStack() as stack:

        async def connected() -> asyncpg.Connection:
            session = await asyncpg.connect(empty_settings.database_url.get_secret_value())
            stack.push_async_callback(session.close)
            return session

        yield connected


async def migrates(session: asyncpg.Connection, statement: str) -> bool:
    """Return whether a migration executes, or last executed, such a statement."""
    return bool(await session.fetchval(MIGRATES, statement))


async def test_a_migration_ends_with_its_statement(
    stack: Stack, empty_settings: Settings, connect: Connect, tmp_path: Path
) -> None:
    """The statement would go on in PostgreSQL."""
    env = stack.environment() | {"EXPORTER_DATABASE_URL": empty_settings.database_url.get_secret_value()}
    session, other = await connect(), await connect()
    await session.execute("CREATE TABLE alembic_version (version_num text)")
    async with session.transaction():
        await session.execute("LOCK TABLE alembic_version")
        with running("migrate", env=env, log=tmp_path / "log") as (process, errors):
            await until_async(lambda: migrates(other, "FROM alembic_version"), otherwise=errors)
            code, seconds = await asyncio.to_thread(stop, process)
            assert code == EXIT_CODE
            assert seconds < patient(END_SECONDS)
            assert not await migrates(other, ".")


async def test_the_log_of_a_migration_is_no_part_of_its_result(
    stack: Stack, empty_settings: Settings, connect: Connect, tmp_path: Path
) -> None:
    env = stack.environment() | {"EXPORTER_DATABASE_URL": empty_settings.database_url.get_secret_value()}
    session = await connect()
    await session.execute("SELECT pg_advisory_lock($1)", LOCK)
    with running("migrate", "--json", env=env, log=tmp_path / "log") as (process, errors):
        await until_async(lambda: "migration.delayed" in errors(), otherwise=errors)
        await session.close()
        output, _ = await asyncio.to_thread(process.communicate, timeout=patient(60))
    assert json.loads(output) == {"migrated": True, "newer_revision": None}
