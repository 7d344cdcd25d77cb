"""Links in messages: each is signed for one recipient of one job, and leads to the API."""

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
    """Nobody here has signed that."""

    code = "bad_link"


class Links:
    """Makes links out of ids of deliveries, and reads them again.

    A link has no time of its own: whoever answers it asks the ledger whether it is revoked, and the job
    whether the file is still there.
    """

    def __init__(self, settings: Settings) -> None:
        self._base = settings.public_url.rstrip("/")
        self._settings = settings

    def _signer(self, purpose: Purpose) -> Signer:
        """Made for each link, since the secret can be changed without a restart."""
        return Signer(
            _keys(self._settings),
            salt=f"exporter.{purpose}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    def download(self, delivery_id: UUID) -> str:
        """Leads to the file."""
        return self._url("links", delivery_id)

    def unsubscribe(self, delivery_id: UUID) -> str:
        """Leads to the end of such mails."""
        return self._url("unsubscribe", delivery_id)

    def _url(self, purpose: Purpose, delivery_id: UUID) -> str:
        token = self._signer(purpose).sign(base64_encode(delivery_id.bytes)).decode()
        return f"{self._base}/exports/{purpose}/{token}"

    def read(self, purpose: Purpose, token: str) -> UUID:
        """The delivery that a link was made for.

        Raises:
            BadLink: it was changed, or made for something else.
        """
        try:
            return UUID(bytes=base64_decode(self._signer(purpose).unsign(token)))
        except (BadData, ValueError) as error:
            raise BadLink("This link is not complete, or was changed") from error


def _keys(settings: Settings) -> list[bytes]:
    """Keys that links are checked with; the last one signs.

    Where there is no secret for links, theirs is derived from the one for tokens. Workers of earlier versions
    sign with that one itself, and so are the links in mails that they sent.

    A deployment that gives the secret for tokens also as the one for links goes on taking all of these.
    """
    if settings.link_secret:
        secret = settings.link_secret.get_secret_value()
        return [derive_key(secret, "links"), secret.encode()]
    secret = settings.jwt_secret.get_secret_value()
    return [secret.encode(), derive_key(secret, "links")]
