"""``python -m tests.mutations``: finds changes of the pure core that its unit tests do not notice.

It chooses changes at random (the same for the same seed), makes each in a copy of the project, and runs the
tests of the changed module. A change that no test notices is printed: either a test is missing, or the
change has no effect.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.mutations.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
COPIED = (
    "streaming_exporter",
    "stream_app",
    "producers",
    "api",
    "dev",
    "tools",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
)

UNIT = "tests/unit"
CORE: Mapping[str, Sequence[str]] = {
    "streaming_exporter/events.py": [f"{UNIT}/streaming_exporter/test_events.py", f"{UNIT}/producers"],
    "streaming_exporter/event_json.py": [f"{UNIT}/streaming_exporter/test_events.py"],
    "streaming_exporter/payloads.py": [f"{UNIT}/streaming_exporter/test_events.py"],
    "streaming_exporter/traceparent.py": [
        f"{UNIT}/observability/test_tracing.py",
        f"{UNIT}/streaming_exporter/test_events.py",
    ],
    "stream_app/worker/watchdog.py": [f"{UNIT}/worker/test_watchdog.py"],
    "stream_app/worker/liveness.py": [f"{UNIT}/worker/test_liveness.py"],
    "stream_app/jobs/states.py": [f"{UNIT}/jobs"],
    "stream_app/datasets/caller.py": [f"{UNIT}/datasets/test_rights.py", f"{UNIT}/api/auth/test_callers.py"],
    "stream_app/datasets/rights.py": [f"{UNIT}/datasets/test_rights.py", f"{UNIT}/api/auth/test_callers.py"],
    "stream_app/exports/tables/rights.py": [f"{UNIT}/datasets/test_rights.py"],
    "stream_app/schedules/grants.py": [f"{UNIT}/schedules/test_run_rights.py"],
    "api/auth/callers.py": [f"{UNIT}/api/auth/test_callers.py", f"{UNIT}/api/auth/test_providers.py"],
    "stream_app/schedules/calendar.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/cron.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/due_runs.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/windows.py": [f"{UNIT}/schedules"],
    "stream_app/exports/filters/local_time.py": [f"{UNIT}/schedules"],
    "stream_app/exports/filters/relative_dates.py": [f"{UNIT}/exports/test_relative_dates.py"],
    "stream_app/exports/columns.py": [f"{UNIT}/exports/test_filters.py"],
    "stream_app/exports/filters/conditions.py": [f"{UNIT}/exports/test_filters.py"],
    "stream_app/addresses.py": [f"{UNIT}/test_addresses.py"],
    "stream_app/notifications/mail/templates.py": [f"{UNIT}/notifications"],
    "stream_app/notifications/delivery_links.py": [f"{UNIT}/notifications"],
    "stream_app/notifications/mail/client.py": [f"{UNIT}/notifications"],
    "api/pagination.py": [f"{UNIT}/api/test_pagination.py"],
}
"""Modules without I/O, and their tests."""

IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Options of pytest: plugins are already imported."""

LONGEST = 120
"""Time-out of the tests of one module in seconds. A change that makes them hang counts as noticed."""


def chosen(count: int, seed: int, only: str) -> list[tuple[str, Mutant]]:
    """Choose changes at random, of modules whose names contain ``only``."""
    every = [
        (module, mutant)
        for module in CORE
        if only in module
        for mutant in mutants((ROOT / module).read_text("utf-8"))
    ]
    return random.Random(seed).sample(every, min(count, len(every)))


class Runner:
    """Runs tests in a copy of the project: ``with Runner() as runner:``."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="mutations-"))
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self._folder / name)
        command = [sys.executable, str(Path(__file__).with_name("forking.py"))]
        self._forking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forking.kill()
        self._forking.communicate()
        shutil.rmtree(self._folder)

    def is_seen(self, module: str, source: str) -> bool:
        """Return whether the module's tests fail with that source."""
        path = self._folder / module
        original = path.read_text("utf-8")
        path.write_text(source, "utf-8")
        options = ["-x", "-q", "-m", "not slow", "-p", "no:randomly", "-p", "no:cacheprovider", *IMPORTED]
        asked = json.dumps([str(self._folder), LONGEST, *options, *CORE[module]])
        assert self._forking.stdin is not None
        assert self._forking.stdout is not None
        self._forking.stdin.write(asked + "\n")
        self._forking.stdin.flush()
        answer = self._forking.stdout.readline()
        path.write_text(original, "utf-8")
        return int(answer) != 0


def main() -> int:
    """Return the number of changes that no test noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: %(default)s)")
    parser.add_argument("--only", default="", help="a part of the names of the modules to change")
    given = parser.parse_args()
    wanted = chosen(given.count, given.seed, given.only)
    unseen = 0
    with Runner() as runner:
        for module in sorted({module for module, _ in wanted}):
            if runner.is_seen(module, (ROOT / module).read_text("utf-8")):
                raise SystemExit(f"the tests of {module} fail without any change")
        for module, mutant in wanted:
            if not runner.is_seen(module, mutant.source):
                unseen += 1
                print(f"not seen: {module}:{mutant.line}: {mutant.what}", flush=True)
    print(f"{len(wanted) - unseen} of {len(wanted)} changes were seen (seed {given.seed})")
    return unseen


if __name__ == "__main__":
    sys.exit(main())
