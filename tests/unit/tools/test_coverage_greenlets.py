"""Coverage.py measures each greenlet for itself, and measured processes do not hang when threads end."""

import json
import subprocess
import sys
from pathlib import Path

from tests.waiting import patient

ROOT = Path(__file__).parents[3]

GREENLETS = """
def wait(other):
    return other[0].switch()  # as SQLAlchemy: after a switch the next event is the return of a function

def {name}(other):
    number = 1
    wait(other)
    if number:
        number = 2
        wait(other)
    return number
"""

SCRIPT = """
import gc, json, sys, threading, weakref
import coverage

measured = coverage.Coverage(data_file=None, config_file=sys.argv[1], source=["."])
measured.start()

import greenlet, one, two

def run():
    for _ in range(3):  # later greenlets can have the ids of earlier ones
        a, b = [None], [None]
        first = greenlet.greenlet(lambda: one.one(b))
        second = greenlet.greenlet(lambda: two.two(a))
        a[0], b[0] = first, second
        while not (first.dead and second.dead):
            for each in (first, second):
                if not each.dead:
                    each.switch()

run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
measured.stop()
weak = [
    found
    for found in gc.get_objects()
    if isinstance(found, weakref.WeakKeyDictionary)
    and any(type(key).__name__ == "greenlet" for key in found)
]
lines = {module.__name__: sorted(measured.get_data().lines(module.__file__)) for module in (one, two)}
print(json.dumps({"lines": lines, "weak": len(weak), "module": weakref.WeakKeyDictionary.__module__}))
"""


def test_each_greenlet_is_measured_and_none_is_kept_in_a_dictionary_of_weak_keys(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(GREENLETS.format(name=name))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(ROOT / "pyproject.toml")]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=True,
    )
    every = [2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert json.loads(done.stdout) == {"lines": {"one": every, "two": every}, "weak": 0, "module": "weakref"}
