"""Measured processes do not hang when threads end."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

SCRIPT = """
import gc, threading, weakref

def names():
    return [
        type(found._remove).__name__
        for found in gc.get_objects()
        if isinstance(found, weakref.WeakKeyDictionary)
        and any(type(key).__name__ == "greenlet" for key in found)
    ]

def look():
    print(*sorted(set(names())))

thread = threading.Thread(target=look)
thread.start()
thread.join()
print(weakref.WeakKeyDictionary.__module__)
"""


def test_the_greenlets_of_all_threads_are_forgotten_by_a_function_in_c(tmp_path: Path) -> None:
    script = tmp_path / "threads.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        f"--rcfile={ROOT / 'pyproject.toml'}",
        "--source=.",
        str(script),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["partial", "weakref"]
