"""Keys for one purpose each, derived from a secret: whoever learns one can do nothing with it elsewhere."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stream_app.settings import Settings


def derive_key(secret: str, purpose: str) -> bytes:
    """32 bytes for ``purpose`` (HKDF with SHA-256, RFC 5869); the same for the same two texts."""
    return HKDF(SHA256(), 32, salt=None, info=f"streaming-exporter/{purpose}".encode()).derive(
        secret.encode()
    )


@dataclass(frozen=True, slots=True)
class AddressHash:
    """Hashes mail addresses and URLs of webhooks for logs. ``key`` is a secret of the deployment."""

    key: bytes

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """With a key that is derived from the secret for links or, without one, that for tokens."""
        secret = settings.link_secret or settings.jwt_secret
        return cls(derive_key(secret.get_secret_value(), "addresses in logs"))

    def __call__(self, address: str) -> str:
        """16 hexadecimal digits, the same for every case of an address."""
        return hmac.new(self.key, address.lower().encode(), hashlib.sha256).hexdigest()[:16]
