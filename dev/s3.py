"""S3: a ``minio`` server where one is installed, else SeaweedFS from its wheel."""

import io
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

import urllib3
from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from dev.cache import HOW_TO_INSTALL, UsageError
from dev.process import Child, free_ports, is_open
from dev.service import Service

_TMP = Path("/tmp")  # noqa: S108 - wired into SeaweedFS
BUCKET, REGION = "exports", "us-east-1"

RETRIES = urllib3.Retry(
    total=8,
    read=0,  # whether the server has done what was asked is not known
    backoff_factor=0.1,
    status_forcelist=[500, 502, 503, 504],
    allowed_methods=None,
    raise_on_status=False,
)
"""SeaweedFS answers some calls with an internal error on a busy machine."""


class S3Service(Service):
    """One bucket on the loopback interface, and one key with all permissions."""

    name = "s3"

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self._ports: list[int] = []
        self.access_key = "local-" + secrets.token_hex(4)
        self.secret_key = secrets.token_hex(20)

    def choose_ports(self) -> None:
        self._ports = free_ports(8)
        self.port = self._ports[0]

    def prepare(self) -> None:
        _sweep_sockets()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "objects").mkdir(exist_ok=True)
        identity = {
            "name": "exporter",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.data_dir / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}))

    def spawn(self) -> Child:
        minio = minio_binary()
        if minio is not None:
            keys = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}
            listen = [
                "--address",
                f"127.0.0.1:{self.port}",
                "--console-address",
                f"127.0.0.1:{self._ports[1]}",
            ]
            argv: list[str | Path] = [minio, "server", *listen, self.data_dir / "objects"]
            return Child(self.name, argv, self.log, env={**os.environ, **keys})
        return Child(
            self.name, [_weed(), *self._weed_arguments()], self.log, cwd=self.data_dir, stop_signal=SIGKILL
        )

    def stop(self, timeout: float = 15) -> None:
        # SIGKILL, because SeaweedFS would wait 15 s for its own connections. Acknowledged data is in files.
        super().stop(timeout)
        for port in self._ports:
            for path in _TMP.glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)

    def _weed_arguments(self) -> list[str]:
        s3, s3_grpc, filer, filer_grpc, master, master_grpc, volume, volume_grpc = self._ports
        options = {
            "dir": self.data_dir / "objects",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.peers": "none",  # no election: a start takes 2 s, not 4, a restart 2 s, not 17
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 1024,
            "master.volumePreallocate": "false",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "volume.max": 1000,  # files of at most 1 GiB, created when they are needed: seven for each bucket
            "volume.preStopSeconds": 0,
            "volume.minFreeSpace": "500MiB",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.encryptVolumeData": "true",  # it compresses texts nevertheless
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.data_dir / "s3.json",
        }
        return ["server", "-filer", "-s3", *(f"-{key}={value}" for key, value in options.items())]

    def is_ready(self) -> bool:
        if not is_open(self.port):
            return False
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=5), retries=False)
        client = self._client(pool)
        try:
            if not client.bucket_exists(bucket_name=BUCKET):
                client.make_bucket(bucket_name=BUCKET)
            # The port answers before the storage is ready. Only a complete round trip proves that it is.
            client.put_object(bucket_name=BUCKET, object_name=".ready", data=io.BytesIO(b"ready"), length=5)
            client.get_object(bucket_name=BUCKET, object_name=".ready").close()
            client.remove_object(bucket_name=BUCKET, object_name=".ready")
        except (MinioException, HTTPError, OSError):
            return False
        return True

    def client(self) -> Minio:
        """Return a client that repeats a call when the server answers with an error of its own."""
        return self._client(urllib3.PoolManager(timeout=60, retries=RETRIES))

    def _client(self, pool: urllib3.PoolManager) -> Minio:
        return Minio(
            endpoint=f"127.0.0.1:{self.port}",
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
            region=REGION,
            http_client=pool,
        )

    def settings(self) -> Mapping[str, str]:
        return {
            "EXPORTER_S3_ENDPOINT": self.address,
            "EXPORTER_S3_ACCESS_KEY": self.access_key,
            "EXPORTER_S3_SECRET_KEY": self.secret_key,
            "EXPORTER_S3_BUCKET": BUCKET,
            "EXPORTER_S3_REGION": REGION,
            "EXPORTER_S3_SECURE": "false",
        }

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _sweep_sockets() -> None:
    """Remove the sockets in /tmp that killed servers left: those on which no server listens."""
    for path in _TMP.glob("seaweedfs-*.sock"):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            status = path.stat()
            if (
                status.st_uid != os.getuid() or time.time() - status.st_mtime < 60
            ):  # its server can be starting
                continue
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)


def minio_binary() -> str | None:
    """Return the program of EXPORTER_LOCAL_MINIO, else ``minio`` on PATH, else ``None``."""
    named = os.environ.get("EXPORTER_LOCAL_MINIO")
    if named and shutil.which(named) is None:
        raise UsageError(f"EXPORTER_LOCAL_MINIO names {named}, which is not a program")
    return named or shutil.which("minio")


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise UsageError(f"SeaweedFS is missing: {HOW_TO_INSTALL}")
    return found
