"""Keys for one purpose each, derived from a secret: whoever learns one can do nothing with it elsewhere."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(secret: str, purpose: str) -> bytes:
    """32 bytes for ``purpose`` (HKDF with SHA-256, RFC 5869); the same for the same two texts."""
    return HKDF(SHA256(), 32, salt=None, info=f"streaming-exporter/{purpose}".encode()).derive(
        secret.encode()
    )
