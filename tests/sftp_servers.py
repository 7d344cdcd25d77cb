"""SFTP servers on the loopback interface: OpenSSH where it is installed, else a server of asyncssh.

Both keep their files in ``root``. Their faults are set in a file, which each new connection reads.
"""

import asyncio
import getpass
import os
import shutil
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import psutil

from dev.process import Child, free_ports, is_open
from tests.waiting import patient

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
"""The server of OpenSSH, a system package, which ``make test`` installs."""

PASSWORD = "correct horse"

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)


class SftpServer(ABC):
    """A server with one user, whose key is ``key``. ``host_key`` is its public key."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.folder = folder
        (self.port,) = free_ports(1)
        self.user = getpass.getuser()
        self.key = folder / "user_key"
        self._host_key = folder / "host_key"
        for path in (self.key, self._host_key):
            asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
            path.chmod(0o600)
        public = asyncssh.read_private_key(self.key).export_public_key().decode()
        (folder / "authorized_keys").write_text(public)
        self.faults()

    @property
    def host_key(self) -> str:
        """The public key of the server."""
        return asyncssh.read_private_key(self._host_key).export_public_key().decode().strip()

    def change_host_key(self) -> None:
        """Give the server another key."""
        self.stop()
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(self._host_key)
        self._host_key.chmod(0o600)
        self.start()

    def faults(self, *, refused: str = "", largest_file: int | None = None) -> None:
        """Set the faults of new connections.

        Args:
            refused: names of requests that are refused, such as ``rename``, separated by commas.
            largest_file: bytes after which the disk is full.
        """
        (self.folder / "refused").write_text(refused)
        (self.folder / "largest").write_text("" if largest_file is None else str(largest_file))

    def files(self) -> dict[str, bytes]:
        """Return all files, temporary ones too, by their paths."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted(found)}

    def clear(self) -> None:
        """Remove all files and faults."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.faults()

    @property
    def is_up(self) -> bool:
        """Return whether the server takes connections."""
        return is_open(self.port)

    @abstractmethod
    def start(self) -> None:
        """Start the server."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server and end all connections."""


class OpenSsh(SftpServer):
    """The server of OpenSSH."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        program = next(path for path in SFTP_SERVERS if Path(path).exists())
        wrapper = folder / "sftp.sh"
        wrapper.write_text(
            f"""#!/bin/bash
            read -r refused < {folder}/refused; read -r largest < {folder}/largest
            [ -n "$largest" ] && trap '' XFSZ && ulimit -f $((largest / 1024))
            exec {program} -d {self.root} ${{refused:+-P $refused}}
            """.replace("            ", "")
        )
        wrapper.chmod(0o755)
        # Without another home, the user's shell would read a profile for each connection.
        (folder / "config").write_text(
            f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {self._host_key}
            AuthorizedKeysFile {folder}/authorized_keys
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            UsePAM no
            StrictModes no
            PermitRootLogin yes
            PidFile none
            SetEnv HOME={folder}
            Subsystem sftp {wrapper}
            """
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._child: Child | None = None
        self._halted: list[psutil.Process] = []

    def start(self) -> None:
        argv = [str(SSHD), "-D", "-e", "-f", str(self.folder / "config")]
        self._child = Child("sshd", argv, self.folder / "sshd.log")
        self._child.wait_until(lambda: is_open(self.port), patient(20))

    def stop(self) -> None:
        if self._child is not None:
            left = [*self._processes(), *self._halted]  # they outlive the server that has started them
            self._child.kill()
            self._child = None
            _send(left, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the processes that read and write files, of all connections."""
        found = [process for process in self._processes() if _is_file_server(process)]
        # A halted process does not end with its connection, and belongs to no server then.
        _send([*found, *self._halted], number)
        self._halted = [*self._halted, *found] if number == signal.SIGSTOP else []

    def _processes(self) -> list[psutil.Process]:
        """Return the processes of the open connections. The system gives the id of an ended one to others."""
        if self._child is not None:
            with suppress(psutil.NoSuchProcess):
                return psutil.Process(self._child.pid).children(recursive=True)
        return []


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for found in processes:
        with suppress(psutil.NoSuchProcess):
            found.send_signal(number)


def _is_file_server(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "sftp-server" in process.name()
    return False


class AsyncSsh(SftpServer):
    """A server of asyncssh, in a thread of its own. It takes a password too."""

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(patient(20))

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(patient(20))

    def _serve(self, ready: threading.Event) -> None:
        server = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
                connections.add(connection)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (server.user, PASSWORD)

        connections: set[asyncssh.SSHServerConnection] = set()

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1",
                self.port,
                server_factory=Login,
                server_host_keys=[str(self._host_key)],
                authorized_client_keys=str(self.folder / "authorized_keys"),
                sftp_factory=lambda channel: _Folder(channel, self),
            )

        asyncio.set_event_loop(self._loop)
        acceptor = self._loop.run_until_complete(listen())
        ready.set()
        self._loop.run_forever()
        acceptor.close()
        for connection in connections:
            connection.abort()
        self._loop.run_until_complete(acceptor.wait_closed())
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()


class _Folder(asyncssh.SFTPServer):
    """The files of :class:`AsyncSsh`, with its faults."""

    def __init__(self, channel: Any, server: SftpServer) -> None:
        super().__init__(channel, chroot=os.fsencode(server.root))
        self._refused = (server.folder / "refused").read_text().split(",")
        self._largest = int((server.folder / "largest").read_text() or 2**60)

    def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        if "rename" in self._refused:
            raise asyncssh.SFTPPermissionDenied("refused")
        return super().rename(oldpath, newpath)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
        if "posix-rename" in self._refused:
            raise asyncssh.SFTPOpUnsupported("refused")
        return super().posix_rename(oldpath, newpath)

    def write(self, file_obj: Any, offset: int, data: bytes) -> Any:
        if "write" in self._refused:
            raise asyncssh.SFTPPermissionDenied("refused")
        if offset + len(data) > self._largest:
            raise asyncssh.SFTPFailure("full")
        return super().write(file_obj, offset, data)


@contextmanager
def sftp_server(folder: Path) -> Iterator[SftpServer]:
    """Run a server for the block: that of OpenSSH, if it is installed."""
    server = OpenSsh(folder) if SSHD is not None else AsyncSsh(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def encrypted_key(key: Path, passphrase: str) -> str:
    """Return a private key, encrypted with a passphrase, as OpenSSH writes it, but quick to decrypt."""
    own = asyncssh.read_private_key(key)
    return own.export_private_key("openssh", passphrase, rounds=4, ignore_few_rounds=True).decode()
