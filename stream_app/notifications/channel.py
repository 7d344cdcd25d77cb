"""What every channel promises: a message is sent, or an error says what is known about it."""

from typing import Protocol

from stream_app.notifications.templates import Notification
from streaming_exporter.errors import ExporterError


class DeliveryFailed(ExporterError):
    """It certainly did not arrive, and can be tried again later.

    ``host_unreachable``: the receiver's host did not answer at all, so nothing else for it would arrive now.
    ``detail`` is for the log of the operators; ``str(error)`` is for the owner of the job.
    """

    code = "undelivered"

    def __init__(self, message: str, *, host_unreachable: bool = False, detail: str | None = None) -> None:
        super().__init__(message)
        self.host_unreachable = host_unreachable
        self.detail = detail or message


class DeliveryRefused(ExporterError):
    """It will never be taken. ``bad_address``: nothing for this address will."""

    code = "refused"

    def __init__(self, message: str, *, bad_address: bool = False) -> None:
        super().__init__(message)
        self.bad_address = bad_address


class DeliveryUncertain(ExporterError):
    """It may have arrived or not, and nobody can find out."""

    code = "uncertain"


class Transport(Protocol):
    """Sends messages over one channel, several at a time."""

    async def send(self, notification: Notification) -> None:
        """Send one message.

        Raises:
            DeliveryFailed, DeliveryRefused, DeliveryUncertain: it was not, or perhaps not, sent.
        """

    async def close_idle(self) -> None:
        """Nothing is due: close what need not stay open."""
