"""Makes the passwords of encrypted zip archives. Nothing is stored."""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Self

from stream_app.keyed_hashes import derive_key
from stream_app.settings import Settings
from stream_app.unsafe_settings import weakness


@dataclass(frozen=True, slots=True)
class FilePasswords:
    """Makes the password of the zip archives of a job. Nothing is stored: the same job has the same password.

    The secret can change while a process runs. Make an object for each use, and do not keep it.

    Attributes:
        key: a key that is derived from the secret of the deployment.
    """

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the passwords of a deployment, or ``None`` if its secret is weak.

        The secret is that of links or, if it is not set, that of tokens. A new secret gives new passwords.
        """
        secret = settings.link_secret or settings.jwt_secret
        if weakness(secret, public=True):
            return None
        return cls(derive_key(secret.get_secret_value(), "passwords of files"))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the key. The manifest of a job has them, to find a changed secret."""
        return hmac.new(self.key, b"fingerprint", hashlib.sha256).hexdigest()[:16]

    def __call__(self, job_id: str) -> str:
        """Return 26 letters and digits: 130 bits."""
        digest = hmac.new(self.key, job_id.encode(), hashlib.sha256).digest()
        return base64.b32encode(digest).decode()[:26].lower()
