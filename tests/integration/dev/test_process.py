"""Child processes: readiness, failure, and their end with the parent."""

import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from dev import process
from dev.cache import ServiceError
from dev.process import Child, free_ports, is_free, is_open
from tests.integration.dev.processes import WAIT_SECONDS, wait_gone


def python(name: str, code: str, folder: Path) -> Child:
    return Child(name, [sys.executable, "-c", code], folder / f"{name}.log")


def test_a_child_that_ends_early_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = python("oracle", "print('the config is wrong'); raise SystemExit(3)", tmp_path)
    with pytest.raises(ServiceError, match=r"oracle exited with 3 before it was ready") as failure:
        child.wait_until(lambda: False, timeout=WAIT_SECONDS)
    assert "the config is wrong" in str(failure.value)
    assert str(child.log) in str(failure.value)


def test_a_child_that_is_not_ready_in_time_is_named_too(tmp_path: Path) -> None:
    child = python("sleeper", "import time; time.sleep(60)", tmp_path)
    with pytest.raises(ServiceError, match="sleeper was not ready within 0 s"):
        child.wait_until(lambda: False, timeout=0.2)
    child.kill()
    wait_gone(child.pid)


def test_stop_asks_and_then_kills_the_whole_group(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
        "time.sleep(60)"
    )
    child = python("stubborn", code, tmp_path)
    child.wait_until(lambda: child.log.read_text().endswith("\n"), timeout=WAIT_SECONDS)
    grandchild = int(child.log.read_text())
    child.stop(timeout=0.3)
    assert child.exit_code == -signal.SIGKILL
    wait_gone(child.pid, grandchild)


def test_a_program_that_does_not_exist_is_an_error_of_the_service(tmp_path: Path) -> None:
    child = Child("ghost", [tmp_path / "nothing"], tmp_path / "ghost.log")
    with pytest.raises(ServiceError, match="ghost exited"):
        child.wait_until(lambda: False, timeout=WAIT_SECONDS)


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from pathlib import Path\n"
        "from dev.process import Child\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "start = lambda n: Child(f'c{n}', sleep, Path(sys.argv[1], 'log'))\n"
        "with ThreadPoolExecutor() as pool:\n"
        "    children = list(pool.map(start, range(3)))\n"
        "time.sleep(0.5)\n"  # the threads that started them have ended, the children must not end
        "print(*(c.pid for c in children), all(c.exit_code is None for c in children), flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as output:
        *pids, alive = output.readline().split()
    assert alive == "True"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_gone(*map(int, pids))


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was stopped finds its port free."""
    monkeypatch.setattr(process, "PORTS", process.PORTS[:200])
    ports = [free_ports(10) for _ in range(10)]
    assert len(set(chain(*ports))) == 100


def test_free_ports_are_free_and_below_those_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768
    assert all(is_free(port) and not is_open(port) for port in ports)
