"""The process of one contender: it warms up, waits for ``go``, makes one export and reports its duration.

Standard input: a line of JSON, later a line ``go``. Standard output: a line ``ready``, later a line of JSON.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO

from bench.context import Context


def main() -> None:
    task = json.loads(sys.stdin.readline())
    run: Callable[[Context], None] = import_module(f"bench.contenders.{task['module']}").run
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(
            sys.stderr.fileno(), sys.stdout.fileno()
        )  # so that output of a library is not taken for the answer
        # A worker has usually written files before, so everything is loaded.
        warm_up = Context(task["format"], task["warm_up"], task["key"])
        run(warm_up)
        warm_up.remove()
        gc.collect()
        _say(answers, "ready")
        if sys.stdin.readline() == "go\n":
            _say(answers, json.dumps(_timed(run, Context(task["format"], task["table"], task["key"]))))
            sys.stdin.readline()  # the parent reads memory and CPU while this process exists


def _timed(run: Callable[[Context], None], context: Context) -> dict[str, Any]:
    started = time.perf_counter()
    run(context)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "key": context.key, "bytes": context.size(), **context.notes}


def _say(answers: TextIO, line: str) -> None:
    answers.write(line + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
