"""Creates the service that checks a worker."""

from stream_app.composition.stop_timeout import stop_timeout
from stream_app.db.engine import create_engine
from stream_app.db.table_check import check_tables
from stream_app.kafka.brokers import Brokers
from stream_app.kafka.transport import App
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.health import BROKER_TIMEOUT, WorkerHealth
from stream_app.worker.liveness import ExitTimer
from stream_app.worker.watchdog import Watchdog


def create_worker_health(settings: Settings, app: App) -> WorkerHealth:
    """Build the service that checks the worker and ends it when it cannot recover by itself."""
    name = app.conf.broker_client_id
    engine = create_engine(settings, application=f"{name} watch", pool_size=1, max_overflow=0, pool_timeout=5)
    storage = ObjectStore(settings, connections=1, timeout_seconds=3, retry_seconds=0)
    return WorkerHealth(
        app,
        worker=name,
        prefix=settings.kafka_topic_prefix,
        brokers=Brokers(settings, client_id=f"{name}-watch", timeout=BROKER_TIMEOUT),
        checks={
            "database": lambda: check_tables(engine),
            "object store": lambda: storage.run_in_thread(storage.check),
        },
        watchdog=Watchdog(settings.stuck_seconds),
        exit_timer=ExitTimer(settings.stuck_seconds),
        exit_seconds=stop_timeout(settings),
        ready_file=settings.ready_file,
    )
