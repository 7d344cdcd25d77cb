"""Runs one contender in a process of its own and measures time, memory and CPU from outside."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import IO, Any, cast

import psutil

SAMPLE_SECONDS = 0.01
FAMILY_SECONDS = 0.2
"""Seconds between two readings of memory, and between two searches for new child processes."""

START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """The measurements of one run. Memory is bytes above the idle process. ``error``: it did not finish."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    size: int = 0
    stall: float | None = None
    key: str = ""
    error: str | None = None


def measure(task: Mapping[str, str], environment: Mapping[str, str], budget: float) -> Outcome:
    """Run one export by ``task["module"]``; kill it after ``budget`` seconds."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(environment),
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        with process:
            try:
                return _Run(process, budget).outcome(task)
            except TimeoutError:
                return Outcome(seconds=budget, error=f"not done after {budget:.0f} s")
            except ChildProcessError:
                code = process.wait(START_SECONDS)
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:]
                return Outcome(error=" ".join(last) or f"ended with code {code}")
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


class _Run:
    def __init__(self, process: "subprocess.Popen[str]", budget: float) -> None:
        self._to, self._from = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
        self._root = psutil.Process(process.pid)
        self._family = [self._root]
        self._family_known_at = 0.0
        self._budget = budget
        self._peak = 0

    def outcome(self, task: Mapping[str, str]) -> Outcome:
        self._tell(json.dumps(dict(task)))
        self._answer(START_SECONDS)
        idle, cpu = self._memory(), self._cpu()
        self._peak = idle
        self._tell("go")
        said: dict[str, Any] = json.loads(self._answer(self._budget))
        return Outcome(
            seconds=said["seconds"],
            cpu=self._cpu() - cpu,
            memory=self._peak - idle,
            size=said["bytes"],
            stall=said.get("stall"),
            key=said["key"],
        )

    def _tell(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the answer has the reason why the process is gone
            self._to.write(line + "\n")
            self._to.flush()

    def _answer(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while not select([self._from], [], [], SAMPLE_SECONDS)[0]:
            self._peak = max(self._peak, self._memory())
            if time.monotonic() > deadline:
                raise TimeoutError
        line = self._from.readline()
        if not line:
            raise ChildProcessError
        return line

    def _memory(self) -> int:
        """Return the resident memory of the process and its children."""
        now = time.monotonic()
        if now - self._family_known_at > FAMILY_SECONDS:
            self._family = [self._root, *self._root.children(recursive=True)]
            self._family_known_at = now
        return sum(_resident(member) for member in self._family)

    def _cpu(self) -> float:
        """Return the processor time of the process and of all its children, also of those that have ended."""
        times = [member.cpu_times() for member in (self._root, *self._root.children(recursive=True))]
        return sum(sum(spent[:4]) for spent in times)


def _resident(member: psutil.Process) -> int:
    try:
        return int(member.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
