"""``SSL_CERT_FILE`` names the authorities of the object store, key sets and webhooks.

Each process reads it when it starts, so every case is a process of its own.
"""

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.settings import Settings
from tests.e2e.listeners import Certificates
from tests.store_proxy import Proxy

STORE = """
import sys
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore

changes = {"s3_endpoint": sys.argv[1]}
store = ObjectStore(Settings().model_copy(update=changes), timeout_seconds=60, retry_seconds=0)
try:
    store.ensure_bucket()
    store.check()
finally:
    store.close()
"""

KEY_SET = """
import asyncio
import sys
import httpx2

async def get():
    async with httpx2.AsyncClient(timeout=60) as client:  # as the API makes it
        return await client.get(sys.argv[1])

asyncio.run(get())
"""

WEBHOOKS = """
import socket
import sys
from urllib.parse import urlsplit
from stream_app.notifications.public_post import PublicPost
from stream_app.settings import Settings

address = urlsplit(sys.argv[1])
with socket.create_connection((address.hostname, address.port), 60) as plain:
    PublicPost(Settings()).tls.wrap_socket(plain, server_hostname=address.hostname).close()
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def address(settings: Settings, certificates: Certificates) -> Iterator[str]:
    """The URL of the object store behind a certificate of a private authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.make("store"))
    with Proxy(settings.s3_endpoint) as proxy:
        proxy.socket = context.wrap_socket(proxy.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


@pytest.mark.parametrize("program", [STORE, KEY_SET, WEBHOOKS], ids=["store", "key set", "webhooks"])
def test_a_private_authority_is_trusted_where_the_variable_names_it(
    settings: Settings, certificates: Certificates, address: str, program: str
) -> None:
    own = {
        f"EXPORTER_{name.upper()}": value.get_secret_value()
        if hasattr(value, "get_secret_value")
        else str(value)
        for name, value in settings.model_dump(exclude_unset=True).items()
        if name.startswith("s3_")
    }

    def run(**variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SSL_CERT")}
        return subprocess.run(
            [sys.executable, "-c", program, address],
            env=environment | own | variables,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
        )

    refused = run()
    assert refused.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    trusted = run(SSL_CERT_FILE=str(certificates.authority))
    assert trusted.returncode == 0, trusted.stderr
