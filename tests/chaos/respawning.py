"""``python -m tests.chaos.respawning``: a worker, and a new one whenever it ends.

All imports are done once, and each worker is forked from there, so that chaos is made of faults and not of
starts. ``RESPAWNED`` names a folder for the running worker's process id and for how its predecessors ended.
"""

import ctypes
import os
import random
import signal
import sys
import time
from pathlib import Path

import stream_app.app  # noqa: F401 - it is what takes time
from stream_app.__main__ import worker
from tests.chaos import doomed

PR_SET_PDEATHSIG = 1


def main() -> None:
    folder = Path(os.environ["RESPAWNED"])
    doomed.arm()
    while (pid := os.fork()) != 0:
        _, status = os.waitpid(pid, 0)
        (folder / "pid").unlink()
        ready = os.environ.get("EXPORTER_READY_FILE")
        if ready:
            Path(ready).unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        with (folder / "exits").open("a") as exits:
            exits.write(f"{pid} {code}\n")
        if code > 0:
            time.sleep(1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    random.seed()
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    worker()


if __name__ == "__main__":
    main()
