"""Builds an image and runs containers with podman or Docker."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dev.cache import ServiceError, UsageError
from dev.compose import ComposeService


def works(program: str) -> bool:
    """Return whether the program is installed and, where it needs a daemon, reaches it."""
    if shutil.which(program) is None:
        return False
    return subprocess.run([program, "info"], capture_output=True).returncode == 0


class ContainerEngine:
    """podman or Docker, as a program to run.

    Args:
        program: its name. Both take the same arguments, apart from the limits of processes.
    """

    def __init__(self, program: str) -> None:
        self.program = program

    @classmethod
    def find(cls, usable: Callable[[str], bool] = works) -> "ContainerEngine":
        """Return the first of podman and Docker that works.

        Raises:
            UsageError: neither works.
        """
        program = next(filter(usable, ("podman", "docker")), None)
        if program is None:
            raise UsageError("neither podman nor Docker works on this machine: install or start one of them")
        return cls(program)

    def build(self, folder: Path, tag: str, arguments: Sequence[str] = ()) -> None:
        """Build the Dockerfile of the folder, with the output on this process's own.

        Raises:
            ServiceError: the build failed.
        """
        command = [self.program, "build", "--network", "host", "--tag", tag, *arguments, "."]
        done = subprocess.run(command, cwd=folder)
        if done.returncode != 0:
            raise ServiceError(f"{' '.join(command)} exited with {done.returncode}")

    def size(self, tag: str) -> int:
        """Return the bytes of the image, all layers together."""
        return int(self._call("image", "inspect", "--format", "{{.Size}}", tag))

    def user(self, tag: str) -> str:
        """Return the user that the image's processes run as."""
        return self._call("image", "inspect", "--format", "{{.Config.User}}", tag)

    def run_arguments(self, tag: str, name: str, service: ComposeService) -> list[str]:
        """Return the arguments that run the service as Compose does, but in the network of this machine.

        Values of the environment are not among them: arguments of processes can be read by every user.
        """
        flags = [
            *(self._read_only() if service.read_only else []),
            *(part for path in service.tmpfs for part in ("--tmpfs", path)),
            *(part for name in service.cap_drop for part in ("--cap-drop", name)),
            *(part for option in service.security_opt for part in ("--security-opt", option)),
            *(part for volume in service.volumes for part in ("--volume", volume)),
            *(part for key in service.environment for part in ("--env", key)),
            *(["--user", service.user] if service.user else []),
        ]
        return ["--name", name, "--network", "host", *self._limits(), *flags, tag, *service.command]

    def _read_only(self) -> list[str]:
        """podman adds writable folders, unless an option forbids it."""
        return ["--read-only", *(["--read-only-tmpfs=false"] if self.program == "podman" else [])]

    def _limits(self) -> list[str]:
        """Return limits that podman can set also within a container, where it cannot raise those it has."""
        if self.program != "podman":
            return []
        limits = {"nofile": (resource.RLIMIT_NOFILE, 65_536), "nproc": (resource.RLIMIT_NPROC, 4_096)}
        arguments = []
        for name, (limit, enough) in limits.items():
            _, highest = resource.getrlimit(limit)
            value = enough if highest == resource.RLIM_INFINITY else min(enough, highest)
            arguments += ["--ulimit", f"{name}={value}:{value}"]
        return arguments

    def run(self, tag: str, name: str, service: ComposeService) -> tuple[int, str]:
        """Run the service to its end; return its exit code and its output."""
        done = subprocess.run(
            [self.program, "run", "--rm", *self.run_arguments(tag, name, service)],
            env=_with_own(service.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout.strip()

    def start(self, tag: str, name: str, service: ComposeService) -> None:
        """Start the service in the background.

        Raises:
            ServiceError: the container did not start.
        """
        arguments = self.run_arguments(tag, name, service)
        self._call("run", "--detach", *arguments, env=_with_own(service.environment))

    def execute(self, name: str, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in a container that runs; return its exit code and its output."""
        done = subprocess.run([self.program, "exec", name, *command], capture_output=True, text=True)
        return done.returncode, (done.stdout + done.stderr).strip()

    def running(self, name: str) -> bool:
        """Return whether the container runs."""
        return self._call("inspect", "--format", "{{.State.Running}}", name) == "true"

    def stop(self, name: str, seconds: float) -> int:
        """Send SIGTERM, and SIGKILL after some seconds; return the exit code of the process."""
        self._call("stop", "-t", f"{seconds:.0f}", name)
        return int(self._call("inspect", "--format", "{{.State.ExitCode}}", name))

    def logs(self, name: str, lines: int = 20) -> str:
        """Return the last lines that the container has written."""
        done = subprocess.run(
            [self.program, "logs", "--tail", str(lines), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout.strip()

    def remove(self, *names: str) -> None:
        """Kill and remove containers; those that do not exist are ignored."""
        for name in names:
            subprocess.run([self.program, "rm", "--force", name], capture_output=True)

    def _call(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, env=env)
        if done.returncode != 0:
            raise ServiceError(f"{self.program} {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


def _with_own(environment: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **environment}
