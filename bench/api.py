"""``python -m bench.api``: measures status requests, relative to a constant response, and idle listeners."""

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import asyncpg
import psutil
import typer
import uvloop

from bench.load import Load, load
from dev.process import free_ports
from dev.progress import console
from dev.stack import Stack
from producers.tokens import sign_token
from stream_app.settings import Settings

CONNECTIONS = 16
ROUND_SECONDS = 3.0
IDLE_SECONDS = 30.0
TARGET = 2.5
"""Limit of the cost of a status request, as a multiple of the constant response."""


def main(
    rounds: Annotated[int, typer.Option(help="Number of rounds, in which all calls take turns")] = 5,
    listeners: Annotated[
        int, typer.Option(help="Number of listeners to events while nothing happens")
    ] = 1000,
    folder: Annotated[Path, typer.Option(help="Folder for the services' data")] = Path(".local/bench-api"),
) -> None:
    """Measure one process of the API on real services."""
    with Stack(folder, ledger_rows=100, keep_logs=False) as stack:
        fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in stack.settings().items()}
        settings = Settings(_env_file=None, **fields)  # type: ignore[arg-type]
        api_port, constant_port = free_ports(2)
        uvicorn = ["uvicorn", "bench.constant:app", "--log-level", "warning", "--no-access-log", "--port"]
        with (
            _server(stack, ["api", "--port", str(api_port)], api_port) as api,
            _server(stack, [*uvicorn, str(constant_port)], constant_port) as constant,
        ):
            uvloop.run(_status(settings, rounds, (api_port, api), (constant_port, constant)))
            if listeners:
                uvloop.run(_listeners(settings, listeners, api_port, api))


async def _status(
    settings: Settings, rounds: int, api: tuple[int, psutil.Process], constant: tuple[int, psutil.Process]
) -> None:
    user = f"user-{uuid4()}"
    path = f"/exports/jobs/{await _job(settings, user)}"
    headers = {"Authorization": f"Bearer {sign_token(settings, user)}"}
    calls = {
        "constant": (constant, "/constant", {}, 200),
        "status": (api, path, headers, 200),
        "status, unchanged": (api, path, {**headers, "If-None-Match": "*"}, 304),
    }
    seen: dict[str, list[tuple[Load, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, ((port, process), target, sent, status) in calls.items():
            spent = _cpu(process)
            result = await load(
                port, target, sent, connections=CONNECTIONS, seconds=ROUND_SECONDS, status=status
            )
            if turn:  # the first warms up
                seen[name].append((result, (_cpu(process) - spent) / len(result.latencies)))
    base = seen["constant"]
    console.print("| call | requests/s | p50 | p99 | CPU a request | time | CPU |")
    console.print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, results in seen.items():
        rate = statistics.median(result.rate for result, _ in results)
        p50, p99 = (statistics.median(one.quantile(part) for one, _ in results) for part in (0.5, 0.99))
        cpu = statistics.median(spent for _, spent in results)
        pairs = list(zip(results, base, strict=True))
        slower = statistics.median(than.rate / one.rate for (one, _), (than, _) in pairs)
        dearer = statistics.median(one / than for (_, one), (_, than) in pairs)
        console.print(
            f"| {name} | {rate:,.0f} | {p50 * 1000:.1f} ms | {p99 * 1000:.1f} ms | {cpu * 1e6:,.0f} µs "
            f"| {slower:.2f} x | {dearer:.2f} x |"
        )
        if name == "status":
            missed = "" if slower <= TARGET else " MISSED"
            console.print(f"<!-- target: at most {TARGET} x{missed} -->", style="dim")


async def _listeners(settings: Settings, number: int, port: int, api: psutil.Process) -> None:
    """Open streams to one job each and let them idle."""
    user = f"user-{uuid4()}"
    token = sign_token(settings, user)
    before = api.memory_info().rss
    open_streams = []
    for _ in range(number):
        job_id = await _job(settings, user)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /exports/jobs/{job_id}/events HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        await reader.readuntil(b"event: job")
        open_streams.append((reader, writer))
    spent, started = _cpu(api), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    share = (_cpu(api) - spent) / (time.monotonic() - started)
    each = (api.memory_info().rss - before) / number
    console.print(f"{number:,} idle listeners: {each / 1024:.0f} KiB each, {share:.1%} of a core")
    for _, writer in open_streams:
        writer.close()


async def _job(settings: Settings, user: str) -> str:
    """Insert a running job with a request of ordinary size; return its id."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        return str(
            await connection.fetchval(
                """
                INSERT INTO export_jobs (id, user_id, export_type, format, status, attempt, filters, columns,
                    options, scope, row_count, estimated_rows, admitted_at,
                    started_at, lease_until)
                VALUES (gen_random_uuid(), $1, 'ledger', 'csv', 'processing', 1,
                    '{"kind": "proof", "created_at": {"gte": "2026-01-01", "lt": "2026-02-01"}}',
                    '["id", "kind", "created_at"]', '{"compression": "gzip"}', 'own', 20000, 50000, now(),
                    now(),
                    now() + interval '1 day')
                RETURNING id
                """,
                user,
            )
        )
    finally:
        await connection.close()


@contextmanager
def _server(stack: Stack, module: list[str], port: int) -> Iterator[psutil.Process]:
    # Neither server logs its requests, because the cost of the log is not measured.
    environment = {**stack.environment(), "EXPORTER_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen([sys.executable, "-m", *module], env=environment)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


if __name__ == "__main__":
    typer.run(main)
