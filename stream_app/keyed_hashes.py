"""Derives keys from a secret, each for one purpose, so that a leaked key has no other use."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stream_app.settings import Settings


def derive_key(secret: str, purpose: str) -> bytes:
    """Return 32 bytes for ``purpose`` (HKDF with SHA-256, RFC 5869). The same texts yield the same key."""
    return HKDF(SHA256(), 32, salt=None, info=f"streaming-exporter/{purpose}".encode()).derive(
        secret.encode()
    )


@dataclass(frozen=True, slots=True)
class AddressHash:
    """Hashes mail addresses and URLs of webhooks for logs. ``key`` is a secret of the deployment."""

    key: bytes

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make a hash with a key from the secret for links or, if that is not set, the secret for tokens."""
        secret = settings.link_secret or settings.jwt_secret
        return cls(derive_key(secret.get_secret_value(), "addresses in logs"))

    def __call__(self, address: str) -> str:
        """Return 16 hexadecimal digits. Upper and lower case of an address yield the same digits."""
        return hmac.new(self.key, address.lower().encode(), hashlib.sha256).hexdigest()[:16]
