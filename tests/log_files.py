"""Reads files to which another process is writing, such as the log of a worker."""

import json
from pathlib import Path
from typing import Any


def complete_lines(file: Path) -> list[str]:
    """Return the lines that are written to their end; none if there is no such file yet."""
    content = file.read_bytes() if file.exists() else b""
    return content[: content.rfind(b"\n") + 1].decode("utf-8").splitlines()


def logged(log: Path) -> list[dict[str, Any]]:
    """Return the events in a log. Lines that are no JSON objects, such as those of a crash, are left out."""
    return [json.loads(line) for line in complete_lines(log) if line.startswith("{")]
