"""The time-out of stopping a worker covers everything that it waits for (Q5)."""

from stream_app.composition.stop_timeout import SHUTDOWN_SECONDS, stop_timeout
from stream_app.kafka.stopping import CLOSE_SECONDS
from stream_app.notifications.sender import REST_SECONDS, SETTLE_SECONDS
from stream_app.observability import telemetry
from stream_app.settings import Settings
from stream_app.worker.dispatcher import DRAIN_SECONDS
from stream_app.worker.presence import LEAVE_SECONDS
from tests.rows import each_row


@each_row("drain", [1, 20, 600])
@each_row("delivery", [1, 30, 900])
def test_the_time_out_covers_exports_and_deliveries(drain: float, delivery: float) -> None:
    settings = Settings(_env_file=None, drain_seconds=drain, delivery_timeout_seconds=delivery)
    ending = stop_timeout(settings)
    assert ending >= drain + DRAIN_SECONDS + SHUTDOWN_SECONDS
    assert ending >= delivery + SETTLE_SECONDS + REST_SECONDS + SHUTDOWN_SECONDS


def test_the_time_out_covers_all_that_follows_the_drain() -> None:
    tasks_end = 2  # mode waits for its tasks, then for its loop
    assert LEAVE_SECONDS + CLOSE_SECONDS + tasks_end + telemetry.SHUTDOWN_SECONDS < SHUTDOWN_SECONDS
