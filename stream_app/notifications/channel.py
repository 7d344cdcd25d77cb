"""The interface of the clients of all channels, and the errors of a delivery that was not sent."""

from datetime import timedelta
from typing import Protocol, runtime_checkable

from stream_app.notifications.notification import Notification
from streaming_exporter.errors import ExporterError


class DeliveryFailed(ExporterError):
    """The delivery certainly did not arrive, and can be retried.

    ``host_unreachable``: the host did not answer, so other deliveries to it would fail too. ``host_called``:
    whether the host was called at all; if not, nothing is known of it. ``retry_after``: the receiver asks not
    to be called before. ``detail`` is for the operators' log, ``str(error)`` is for the owner of the job.
    """

    code = "undelivered"

    def __init__(
        self,
        message: str,
        *,
        host_unreachable: bool = False,
        host_called: bool = True,
        retry_after: timedelta = timedelta(0),
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.host_unreachable = host_unreachable
        self.host_called = host_called
        self.retry_after = retry_after
        self.detail = detail or message


class DeliveryRefused(ExporterError):
    """The receiver will never accept the delivery. ``bad_address``: it accepts nothing for this address.

    ``detail`` is for the operators' log, ``str(error)`` is for the owner of the job.
    """

    code = "refused"

    def __init__(self, message: str, *, bad_address: bool = False, detail: str | None = None) -> None:
        super().__init__(message)
        self.bad_address = bad_address
        self.detail = detail


class DeliveryUncertain(ExporterError):
    """It is not known whether the delivery arrived, and it cannot be found out.

    ``detail`` is for the operators' log, ``str(error)`` is for the owner of the job.
    """

    code = "uncertain"

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


class DeliveryClient(Protocol):
    """Sends deliveries over one channel, several at a time."""

    async def send(self, notification: Notification) -> None:
        """Send one delivery.

        Raises:
            DeliveryFailed: it did not arrive and can be retried.
            DeliveryRefused: the receiver will never accept it.
            DeliveryUncertain: it is not known whether it arrived.
        """

    async def close_idle(self) -> None:
        """Close idle connections, because no delivery is due."""


@runtime_checkable
class Retractable(Protocol):
    """A client that can take back what the attempts of a delivery have sent."""

    async def retract(self, notification: Notification) -> str | None:
        """Remove what was sent of a delivery that is given up.

        Returns:
            A text for the owner of the job if something is left, else ``None``.
        """


@runtime_checkable
class Interruptible(Protocol):
    """A client that can end deliveries before their time-out. They continue with another attempt."""

    def interrupt(self) -> None:
        """End the deliveries in progress soon, because the worker stops."""
