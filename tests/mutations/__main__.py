"""``python -m tests.mutations``: which changes of the pure core do its unit tests not notice?

Takes changes at random, the same for the same seed, makes each in a copy of the project, and runs the tests
that are about that module. One that no test notices is printed: either a test is missing, or the change
changes nothing.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutations.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
COPIED = ("stream_app", "producers", "api", "local", "tests", "docs", "pyproject.toml", "README.md")

UNIT = "tests/unit"
CORE: Mapping[str, Sequence[str]] = {
    "stream_app/events.py": [f"{UNIT}/test_events.py", f"{UNIT}/agents"],
    "stream_app/payloads.py": [f"{UNIT}/test_events.py"],
    "stream_app/traceparent.py": [f"{UNIT}/test_tracing.py", f"{UNIT}/test_events.py"],
    "stream_app/watchdog.py": [f"{UNIT}/test_watchdog.py"],
    "stream_app/readiness.py": [f"{UNIT}/test_readiness.py"],
    "stream_app/jobs/states.py": [f"{UNIT}/jobs"],
    "stream_app/schedules/calendar.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/localtime.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/plan.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/relative.py": [f"{UNIT}/schedules"],
    "stream_app/schedules/windows.py": [f"{UNIT}/schedules"],
    "stream_app/exports/columns.py": [f"{UNIT}/exports/test_filters.py"],
    "stream_app/exports/filters.py": [f"{UNIT}/exports/test_filters.py"],
    "stream_app/delivery/addresses.py": [f"{UNIT}/delivery"],
    "stream_app/delivery/content.py": [f"{UNIT}/delivery"],
    "stream_app/delivery/links.py": [f"{UNIT}/delivery"],
    "stream_app/delivery/message.py": [f"{UNIT}/delivery"],
    "stream_app/delivery/notice.py": [f"{UNIT}/delivery"],
    "api/cursor.py": [f"{UNIT}/api/test_cursor.py"],
}
"""Modules without I/O, and the tests that are about them."""

LONGEST = 120
"""Seconds for the tests of one module; a change that makes them hang is noticed."""


def chosen(count: int, seed: int, only: str) -> list[tuple[str, Mutant]]:
    """Changes at random, of all modules whose names have ``only`` in them."""
    every = [
        (module, mutant)
        for module in CORE
        if only in module
        for mutant in mutants((ROOT / module).read_text("utf-8"))
    ]
    return random.Random(seed).sample(every, min(count, len(every)))


def is_seen(copy: Path, module: str, source: str) -> bool:
    """Whether the module's tests fail with that source in the copy."""
    path = copy / module
    original = path.read_text("utf-8")
    path.write_text(source, "utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, "--no-header", "-m", "not slow", *CORE[module]],
            cwd=copy,
            capture_output=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(original, "utf-8")
    return done.returncode != 0


def main() -> int:
    """Returns how many changes were not seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: %(default)s)")
    parser.add_argument("--only", default="", help="a part of the names of the modules to change")
    given = parser.parse_args()
    wanted = chosen(given.count, given.seed, given.only)
    unseen = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        for module in sorted({module for module, _ in wanted}):
            if is_seen(copy, module, (ROOT / module).read_text("utf-8")):
                raise SystemExit(f"the tests of {module} fail without any change")
        for module, mutant in wanted:
            if not is_seen(copy, module, mutant.source):
                unseen += 1
                print(f"not seen: {module}:{mutant.line}: {mutant.what}", flush=True)
    print(f"{len(wanted) - unseen} of {len(wanted)} changes were seen (seed {given.seed})")
    return unseen


if __name__ == "__main__":
    sys.exit(main())
