"""Keeps a worker running: starts it again whenever it ends.

All imports are done once, in the fork server of :mod:`multiprocessing`. Each keeper is forked from that
server, and each worker from its keeper, so that starts are fast.
"""

import ctypes
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

PR_SET_PDEATHSIG = 1

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["stream_app.composition.worker", "stream_app.__main__", "tests.chaos.doomed"])


def keep_worker(folder: Path, log: Path, environment: Mapping[str, str], cwd: Path) -> BaseProcess:
    """Start the keeper of one worker, in a session of its own.

    Args:
        folder: the keeper writes ``pid``, the process id of the worker, and ``exits``, the exit codes.
        log: receives the output of the workers.
        environment: the complete environment of the workers.
    """
    keeper = FORKED.Process(target=_keep, args=(folder, log, dict(environment), cwd))
    keeper.start()
    return keeper


def _keep(folder: Path, log: Path, environment: dict[str, str], cwd: Path) -> None:
    from stream_app.__main__ import worker
    from tests.chaos import doomed

    os.setsid()
    _die_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    doomed.arm()
    while (pid := os.fork()) != 0:
        _, status = os.waitpid(pid, 0)
        (folder / "pid").unlink()
        Path(environment["EXPORTER_READY_FILE"]).unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        with (folder / "exits").open("a") as exits:
            exits.write(f"{pid} {code}\n")
        if code > 0:
            time.sleep(0.2)
    _die_with_parent()
    random.seed()
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    worker()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
