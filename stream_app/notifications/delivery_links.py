"""Links to the API in mails, chat messages and webhooks. Each is signed for one delivery."""

import hashlib
from typing import Literal
from uuid import UUID

from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from stream_app.keyed_hashes import derive_key
from stream_app.settings import Settings
from streaming_exporter.errors import ExporterError

Purpose = Literal["links", "unsubscribe"]


class BadLink(ExporterError):
    """The token of a link has no valid signature."""

    code = "bad_link"


class DeliveryLinks:
    """Signs the ids of deliveries as links, and verifies them.

    A link has no expiry time. The API checks the delivery for a revocation and the job for its file.
    """

    def __init__(self, settings: Settings) -> None:
        self._base = settings.public_url.rstrip("/")
        self._settings = settings

    def _signer(self, purpose: Purpose) -> Signer:
        """Make a signer for each link, because the secret can change without a restart."""
        return Signer(
            _keys(self._settings),
            salt=f"exporter.{purpose}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    def download(self, delivery_id: UUID) -> str:
        """Return the link to the file."""
        return self._url("links", delivery_id)

    def unsubscribe(self, delivery_id: UUID) -> str:
        """Return the link that unsubscribes the recipient."""
        return self._url("unsubscribe", delivery_id)

    def page(self, job_id: UUID) -> str:
        """Return the address at which the page shows the job, to users who sign in and can see it."""
        return f"{self._base}/#job-{job_id}"

    def _url(self, purpose: Purpose, delivery_id: UUID) -> str:
        token = self._signer(purpose).sign(base64_encode(delivery_id.bytes)).decode()
        return f"{self._base}/exports/{purpose}/{token}"

    def read(self, purpose: Purpose, token: str) -> UUID:
        """Return the id of the delivery in the token of a link.

        Raises:
            BadLink: the token was changed or was made for another purpose.
        """
        try:
            return UUID(bytes=base64_decode(self._signer(purpose).unsign(token)))
        except (BadData, ValueError) as error:
            raise BadLink("This link is not complete or was changed") from error


def _keys(settings: Settings) -> list[bytes]:
    """Return the keys that verify links; the last one signs.

    Without a secret for links, the key is derived from the secret for tokens. Earlier versions signed with
    that secret itself, so it verifies the links in their mails. If both settings have the same secret, links
    from before that change stay valid too.
    """
    if settings.link_secret:
        secret = settings.link_secret.get_secret_value()
        return [derive_key(secret, "links"), secret.encode()]
    secret = settings.jwt_secret.get_secret_value()
    return [secret.encode(), derive_key(secret, "links")]
