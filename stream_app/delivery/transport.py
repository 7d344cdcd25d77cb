"""What every channel promises: a message is sent, or an error says what is known about it."""

from typing import Protocol

from stream_app.delivery.notice import Notice
from stream_app.errors import ExporterError


class Undelivered(ExporterError):
    """It certainly did not arrive, and may when it is tried again later."""

    code = "undelivered"


class Refused(ExporterError):
    """It will never be taken. ``bad_address``: nothing for this address will."""

    code = "refused"

    def __init__(self, message: str, *, bad_address: bool = False) -> None:
        super().__init__(message)
        self.bad_address = bad_address


class Uncertain(ExporterError):
    """It may have arrived or not, and nobody can find out."""

    code = "uncertain"


class Transport(Protocol):
    """Sends messages over one channel, several at a time."""

    async def send(self, notice: Notice) -> None:
        """Send one message.

        Raises:
            Undelivered, Refused, Uncertain: it was not, or perhaps not, sent.
        """

    async def rest(self) -> None:
        """Nothing is due: close what need not stay open."""
