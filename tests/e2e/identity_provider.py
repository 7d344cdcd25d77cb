"""A real OpenID Connect provider as a process: oidc-provider, which `make setup` installs in tests/node."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path

import httpx2
import pytest

from dev.process import Child, ManagedProcess, free_ports
from tests.waiting import WITHIN, patient

FOLDER = Path(__file__).parents[1] / "node"
AUDIENCE = "https://exports.example.com"


class IdentityProvider(ManagedProcess):
    """The provider; ``page`` is the URL of the page. It forgets everything but its key when it stops."""

    name = "identity-provider"

    def __init__(self, page: str, run_dir: Path) -> None:
        self.log = run_dir / "logs" / "identity-provider.log"
        self.page = page
        self._key = run_dir / "identity-provider.jwk"
        (self._port,) = free_ports(1)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def settings(self) -> dict[str, str]:
        """Return the variables of an API whose page signs in here."""
        return {
            "EXPORTER_JWT_JWKS_URL": f"{self.address}/jwks",
            "EXPORTER_JWT_ISSUER": self.address,
            "EXPORTER_JWT_AUDIENCE": AUDIENCE,
            "EXPORTER_OIDC_CLIENT_ID": "page",
            "EXPORTER_OIDC_AUDIENCE": AUDIENCE,
        }

    def start(self) -> None:
        node = shutil.which("node")
        if node is None or not (FOLDER / "node_modules").is_dir():
            pytest.fail("Node.js with npm is needed (Debian, Ubuntu: apt-get install npm), then: make setup")
        argv = [node, "identity_provider.js", str(self._port), self.page, str(self._key)]
        self.wait_ready(Child(self.name, argv, self.log, cwd=FOLDER), patient(30))

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/jwks", timeout=patient(3)):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def set_seconds(self, **seconds: int) -> None:
        """Set the lifetime of each ``code`` or ``token`` that is issued from now on."""
        httpx2.put(f"{self.address}/test/seconds", json=seconds, timeout=patient(WITHIN)).raise_for_status()
