"""Addresses in logs: a keyed hash, by which lines about one address can be found, and the address cannot."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Self

from stream_app.keys import derive
from stream_app.settings import Settings


@dataclass(frozen=True, slots=True)
class AddressHash:
    """Hashes mail addresses and URLs of webhooks for logs. ``key`` is a secret of the deployment."""

    key: bytes

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """With a key that is derived from the secret for links or, without one, that for tokens."""
        secret = settings.link_secret or settings.jwt_secret
        return cls(derive(secret.get_secret_value(), "addresses in logs"))

    def __call__(self, address: str) -> str:
        """16 hexadecimal digits, the same for every case of an address."""
        return hmac.new(self.key, address.lower().encode(), hashlib.sha256).hexdigest()[:16]
