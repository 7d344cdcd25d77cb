"""The TypeScript client, built with the packages of its lock file."""

import fcntl
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "clients" / "typescript"


def run(*command: str, folder: Path = CLIENT, env: dict[str, str] | None = None) -> str:
    """Run a program in ``folder``; return its output, which a failure shows."""
    program = shutil.which(command[0])
    assert program is not None, f"{command[0]} is missing: install Node 18 or later with npm"
    done = subprocess.run([program, *command[1:]], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@cache
def build_client() -> Path:
    """Build the client, once in this process; return its folder.

    Packages are installed only where the lock file has changed.
    """
    with (CLIENT / "package.json").open() as lock:  # other processes build it, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = hashlib.sha256((CLIENT / "package-lock.json").read_bytes()).hexdigest()
        installed = CLIENT / "node_modules" / ".installed"
        if not installed.exists() or installed.read_text() != digest:
            run("npm", "ci", "--prefer-offline")
            installed.write_text(digest)
        run("npm", "run", "build")
    return CLIENT
