"""The keys of the mask ``hash``, derived from a secret of the deployment."""

from stream_app.keyed_hashes import derive_key
from stream_app.settings import Settings
from stream_app.unsafe_settings import weakness
from streaming_exporter.errors import Rejected

BLOCK = 64
"""Bytes of a block of SHA-256, to which HMAC (RFC 2104) extends its key."""

INNER, OUTER = 0x36, 0x5C
"""The bytes that HMAC combines with the key for its two hashes."""


def hash_keys(settings: Settings) -> str:
    """Return both keys of HMAC in hexadecimal digits, with a comma between them.

    The secret is that of links or, if it is not set, that of tokens. A new secret gives new hashes.

    Raises:
        Rejected: the secret is so weak that others could try values with it.
    """
    secret = settings.link_secret or settings.jwt_secret
    if why := weakness(secret, public=True):
        name = "EXPORTER_JWT_SECRET" if settings.link_secret is None else "EXPORTER_LINK_SECRET"
        raise Rejected(
            "a column of the dataset is hashed, for which the service has no good secret; operators: set "
            f"EXPORTER_LINK_SECRET, the same for all workers and the API; {name} is in use, and {why}",
            code="missing_secret",
        )
    key = derive_key(secret.get_secret_value(), "masked values").ljust(BLOCK, b"\0")
    return ",".join(bytes(byte ^ pad for byte in key).hex() for pad in (INNER, OUTER))
