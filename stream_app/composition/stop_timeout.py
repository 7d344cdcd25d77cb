"""Calculates how long a worker needs to stop."""

from stream_app.kafka.stopping import CLOSE_SECONDS
from stream_app.notifications.sender import REST_SECONDS, SETTLE_SECONDS
from stream_app.settings import Settings
from stream_app.worker.dispatcher import DRAIN_SECONDS

SHUTDOWN_SECONDS = CLOSE_SECONDS + 7
"""Seconds that a worker has to close its connections after its exports have ended.

Beside :data:`CLOSE_SECONDS` it needs 2 to sign off, 2 to end its tasks and 2 to send its last traces."""


def stop_timeout(settings: Settings) -> float:
    """Return the seconds that a worker has to stop: the longest drain, and closing its connections."""
    exports = settings.drain_seconds + DRAIN_SECONDS
    deliveries = settings.delivery_timeout_seconds + SETTLE_SECONDS + REST_SECONDS
    return max(exports, deliveries) + SHUTDOWN_SECONDS
