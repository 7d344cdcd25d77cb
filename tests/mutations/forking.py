"""Runs pytest repeatedly in processes forked from one that has imported the libraries.

It is started by its path, so that the project is imported only from the current folder. Each line of the
input is a JSON list: the folder, the time-out in seconds, and the arguments of pytest. The exit code is
written as a line.
"""

import importlib
import json
import os
import signal
import sys

LIBRARIES = (
    "aiokafka", "alembic.command", "asyncpg", "email_validator", "fastapi", "faust", "httpx2",
    "hypothesis.strategies", "itsdangerous", "minio", "pydantic_settings", "pytest", "pytest_asyncio",
    "schemathesis", "sqlalchemy.ext.asyncio", "structlog", "xdist.scheduler.loadscope",
)  # fmt: skip


def main() -> None:
    sys.dont_write_bytecode = True
    for library in LIBRARIES:
        importlib.import_module(library)
    answers = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    for line in sys.stdin:
        folder, seconds, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(folder, seconds, arguments)
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(folder: str, seconds: int, arguments: list[str]) -> None:
    import pytest

    signal.alarm(seconds)
    os.chdir(folder)
    sys.path[0] = folder
    code = 1
    try:
        code = int(pytest.main(arguments))
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
