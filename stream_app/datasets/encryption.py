"""Checks how a request asks for its files to be encrypted. Pure."""

from typing import Any, TypeAlias

from stream_app.datasets.bundles import members_of
from stream_app.datasets.models import Dataset
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Encrypt

NO_PASSWORDS = (
    "this service has no good secret to make passwords from; use encrypt.age; operators: set "
    "EXPORTER_LINK_SECRET, the same for all workers and the API"
)

KEYS = "age1…, ssh-ed25519 … or ssh-rsa …"

AgeKey: TypeAlias = Any
"""A public key of the library, which has no types."""


def check_encryption(dataset: Dataset, encrypt: Encrypt | None, *, has_passwords: bool) -> None:
    """Check that files of ``dataset`` can be written with ``encrypt``.

    Args:
        dataset: the dataset.
        encrypt: what the request asks for; ``None`` for files that are not encrypted.
        has_passwords: whether the service can make passwords of zip archives.

    Raises:
        Rejected: the dataset requires encryption, a public key is invalid, or the service has no secret that
            passwords can be made from.
    """
    if encrypt is None:
        required = next((item for item in members_of(dataset) if item.encrypt == "required"), None)
        if required is not None:
            raise Rejected(
                f"files of dataset {required.name!r} must be encrypted; set encrypt to "
                '{"age": [public keys]} or {"zip_password": true}',
                code="encryption_required",
                field="encrypt",
            )
        return
    for place, key in enumerate(encrypt.age or ()):
        age_key(key, field=f"encrypt.age.{place}")
    if encrypt.zip_password and not has_passwords:
        raise Rejected(NO_PASSWORDS, code="missing_secret", field="encrypt.zip_password")


def age_key(text: str, *, field: str = "encrypt.age") -> AgeKey:
    """Return the public key that ``text`` is.

    Raises:
        Rejected: it is none that age knows.
    """
    import pyrage  # a native library, which few requests need

    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        is_private = text.upper().startswith("AGE-SECRET-KEY")
        what = "a private key; keep it secret" if is_private else "no public key of age or SSH"
        raise Rejected(f"it is {what}; allowed: {KEYS}", field=field) from error
