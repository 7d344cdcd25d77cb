"""Measures the cost of a block: processor time of each part, transactions and WAL of PostgreSQL."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import asyncpg
import psutil

from dev.stack import Stack

PARTS = ("workers", "postgres", "kafka", "s3", "bench")
"""``bench`` is this process, which publishes the requests and reads the events."""


@dataclass(slots=True)
class Spent:
    """The cost over ``seconds``: processor seconds of each part and of the whole machine, and writes.

    ``transactions`` are those of PostgreSQL that wrote. ``wal`` is in bytes, without images of whole pages.
    """

    seconds: float = 0.0
    cpu: Mapping[str, float] = field(default_factory=dict)
    machine: float = 0.0
    transactions: int = 0
    wal: int = 0

    def per_job(self, jobs: int) -> dict[str, float]:
        """Return the processor seconds of each part for one of ``jobs``."""
        return {part: seconds / jobs for part, seconds in self.cpu.items()}

    @property
    def elsewhere(self) -> float:
        """The cores that other programs used on average."""
        return max(0.0, (self.machine - sum(self.cpu.values())) / self.seconds)


@contextmanager
def measuring(stack: Stack) -> Iterator[Spent]:
    """Measure the cost of the block; the result is complete at its end."""
    spent = Spent()
    cpu, machine, written, began = _by_part(stack), _machine(), _written(stack), time.perf_counter()
    yield spent
    spent.seconds = time.perf_counter() - began
    spent.machine = _machine() - machine
    spent.cpu = {part: seconds - cpu[part] for part, seconds in _by_part(stack).items()}
    transactions, wal = _written(stack)
    spent.transactions, spent.wal = transactions - written[0], wal - written[1]


def cores() -> int:
    """Return the number of cores that this process and its children can use."""
    return len(os.sched_getaffinity(0))


def _by_part(stack: Stack) -> dict[str, float]:
    seconds = dict.fromkeys(PARTS, 0.0)
    for name, pid in stack.pids().items():
        part = "workers" if name.startswith("worker-") else name
        if part in seconds:
            seconds[part] += _family(pid)
    seconds["bench"] = sum(psutil.Process().cpu_times()[:2])
    return seconds


def _family(pid: int) -> float:
    """Return the processor time of a process and of its children, also of those that have ended."""
    root = psutil.Process(pid)
    total = 0.0
    for member in (root, *root.children(recursive=True)):
        try:
            total += sum(member.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # the next reading finds its time in that of its parent
    return total


def _machine() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _written(stack: Stack) -> tuple[int, int]:
    """Return the number of the next transaction, and the end of the WAL."""

    async def ask() -> tuple[int, int]:
        connection = await asyncpg.connect(stack.postgres.admin_url())
        try:
            number, end = await connection.fetchrow(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
                " pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
            )
            return number, end
        finally:
            await connection.close()

    return asyncio.run(ask())
