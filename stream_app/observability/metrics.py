"""All metrics of the service.

Ids are never labels, and unknown names share one, see :mod:`stream_app.observability.metric_labels`. Each
process counts its own metrics. Metrics that are read from the state database are in :data:`QUEUE`.
"""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from stream_app.observability.metric_labels import (
    OTHER,
    code_label,
    is_failure_of_service,
    job_labels,
    values_of_label,
)
from streaming_exporter.errors import ExporterError, Rejected
from streaming_exporter.events import LifecycleData, Topic

CONSUMED_TOPICS = (Topic.REQUESTS, Topic.EVENTS, Topic.TICKS)
LOOP_LAG_INTERVAL = 0.25
"""Seconds between two measurements of the event loop."""

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600)
LAGS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
POWERS_OF_TEN = tuple(float(10**power) for power in range(1, 9))
SIZES = tuple(float(1024 * 4**power) for power in range(13))
RATES = (100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)

# They would double the series of counters, and nothing reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

PROCESS = CollectorRegistry()
"""Metrics of workers and of APIs."""
WORKER = CollectorRegistry()
"""Metrics of a worker."""
HTTP = CollectorRegistry()
"""Metrics of the API's calls."""
QUEUE = CollectorRegistry()
"""Metrics that the API reads from the state database. All APIs have the same values."""

ProcessCollector(registry=PROCESS)
ERRORS = Counter(
    "exporter_errors",
    "Errors of another system, by part and kind",
    ["part", "kind"],
    registry=PROCESS,
)
LOOP_LAG = Histogram(
    "exporter_event_loop_lag_seconds",
    "Delay of a timer of the event loop",
    buckets=LAGS,
    registry=PROCESS,
)
SOURCE_UP = Gauge(
    "exporter_source_up",
    "1 while connections to the source database are possible",
    ["source"],
    registry=PROCESS,
)
SOURCE_CONNECTIONS = Gauge(
    "exporter_source_connections",
    "Connections to the source database that are in use or waited for",
    ["source"],
    registry=PROCESS,
)
DATASETS_LOADED = Gauge(
    "exporter_datasets_loaded_timestamp_seconds",
    "When this process read the datasets file that it uses",
    registry=PROCESS,
)
DATASETS_RELOAD_FAILED = Gauge(
    "exporter_datasets_reload_failed",
    "1 while the datasets file has changed and cannot be used; the process uses the last one",
    registry=PROCESS,
)

JOBS = Counter(
    "exporter_jobs_ended",
    "Jobs that have ended, each counted once",
    ["state", "dataset", "format"],
    registry=WORKER,
)
FAILURES = Counter(
    "exporter_job_failures",
    "Failed jobs, by cause: request or service",
    ["cause"],
    registry=WORKER,
)
FAILURES_BY_CODE = Counter(
    "exporter_job_failures_by_code",
    "Failed jobs by the code of their error",
    ["code", "dataset", "format"],
    registry=WORKER,
)
ADMISSION_LAG = Histogram(
    "exporter_admission_lag_seconds",
    "Time from a request event to the admission of its job",
    buckets=LAGS,
    registry=WORKER,
)
CLAIMS = Counter("exporter_claims", "Attempts that were claimed", ["attempt"], registry=WORKER)
LEASES_LOST = Counter("exporter_leases_lost", "Attempts that lost their lease", registry=WORKER)
RETRIES = Counter(
    "exporter_retries", "Jobs that went back to pending, by reason", ["reason"], registry=WORKER
)
SLOTS = Gauge("exporter_slots", "Exports that the worker can run at a time", registry=WORKER)
SLOTS_IN_USE = Gauge("exporter_slots_running", "Exports that are running", registry=WORKER)
DURATION = Histogram(
    "exporter_export_duration_seconds",
    "Time from the claim of a completed attempt to its stored outcome",
    ["format"],
    buckets=SECONDS,
    registry=WORKER,
)
ROWS = Histogram(
    "exporter_export_rows", "Rows of a completed export", ["format"], buckets=POWERS_OF_TEN, registry=WORKER
)
BYTES = Histogram(
    "exporter_export_bytes", "Bytes of a completed export", ["format"], buckets=SIZES, registry=WORKER
)
RATE = Histogram(
    "exporter_export_rows_per_second",
    "Rows a second of a completed export",
    ["format"],
    buckets=RATES,
    registry=WORKER,
)
DEAD_LETTERS = Counter(
    "exporter_dead_letters", "Messages that were moved to the dead-letter topic", ["topic"], registry=WORKER
)
DELIVERIES = Counter(
    "exporter_deliveries",
    "Deliveries of mails, webhooks and files to destinations, by outcome",
    ["channel", "outcome"],
    registry=WORKER,
)
CONSUMER_LAG = Gauge(
    "exporter_consumer_lag",
    "Messages of this worker's partitions that are not processed",
    ["topic"],
    registry=WORKER,
)
OFFSETS_LOST = Counter(
    "exporter_offsets_lost",
    "Partitions that are read from their beginning, because the committed offset does not exist",
    ["reason"],
    registry=WORKER,
)
CLAIMS_PAUSED = Gauge(
    "exporter_worker_claims_paused", "Pauses of claims that the worker knows", registry=WORKER
)
READY = Gauge("exporter_worker_ready", "1 while the worker is ready", registry=WORKER)

UNFINISHED = Gauge(
    "exporter_jobs_unfinished",
    "Pending and processing jobs",
    ["state", "dataset", "format"],
    registry=QUEUE,
)
OLDEST_PENDING = Gauge(
    "exporter_oldest_pending_seconds",
    "Waiting time of the oldest job that is ready to run; 0 if no job waits",
    registry=QUEUE,
)
QUEUE_READ = Gauge(
    "exporter_queue_read", "1 if the state database answered when these metrics were read", registry=QUEUE
)

SCHEDULES = Gauge(
    "exporter_schedules",
    "Schedules by state: active, paused, late, failing, paused_by_service",
    ["state"],
    registry=QUEUE,
)
DELIVERIES_WAITING = Gauge(
    "exporter_deliveries_waiting", "Mails and webhook calls that are to be sent", registry=QUEUE
)
PAUSED = Gauge(
    "exporter_claims_paused", "1 for each scope whose claims operators have paused", ["scope"], registry=QUEUE
)

HTTP_SECONDS = Histogram(
    "exporter_http_request_duration_seconds",
    "Time from a request to the start of its response, by the template of the route",
    ["method", "route"],
    buckets=LAGS,
    registry=HTTP,
)
HTTP_REQUESTS = Counter(
    "exporter_http_requests",
    "Responses, by the template of the route and by status",
    ["method", "route", "status"],
    registry=HTTP,
)

# An alert sees no increase in a series that begins with its first event. So these series begin at 0.
for metric, words in (
    (FAILURES, ("request", "service")),
    (CLAIMS, ("first", "later")),
    (RETRIES, ("drain", "fault", "outage")),
    (DEAD_LETTERS, CONSUMED_TOPICS),
    (OFFSETS_LOST, ("before_beginning", "beyond_end", "topic_made_anew")),
):
    for word in words:
        metric.labels(word)

DELIVERY_CHANNELS = ("mail", "webhook", "slack", "teams", "destination")
DELIVERY_OUTCOMES = ("sent", "failed", "skipped", "ambiguous", "postponed")
for channel, outcome in product(DELIVERY_CHANNELS, DELIVERY_OUTCOMES):
    DELIVERIES.labels(channel, outcome)

FIRST_STATES = ("completed", "failed")
"""States whose series of :data:`JOBS` begin at 0: those of alerts."""

MAX_FIRST_SERIES = 500
"""Limit of the series of :data:`JOBS` that begin at 0, as long as the process lives. All others begin with
their first job: Prometheus drops scrapes that are too large, and then all alerts are blind."""

REGISTRIES: Mapping[str, tuple[CollectorRegistry, ...]] = {
    "worker": (PROCESS, WORKER),
    "api": (PROCESS, HTTP, QUEUE),
}
"""The registries of each kind of process."""

_first_series: set[tuple[str, str, str]] = set()

_sources: set[str] = set()


def start_ended_job_series() -> None:
    """Begin the series of jobs with known labels at 0, up to :data:`MAX_FIRST_SERIES`. APIs have none.

    All workers take the same ones.
    """
    names, formats = map(values_of_label, ("dataset", "format"))
    for dataset, format_, state in product(names, formats, FIRST_STATES):
        labels = (state, dataset, format_)
        if labels not in _first_series and len(_first_series) >= MAX_FIRST_SERIES:
            return
        _first_series.add(labels)
        JOBS.labels(*labels)


def set_sources(sources: Mapping[str, tuple[bool, int]]) -> None:
    """Set for each source whether it answers, and its connections. Other sources do not exist any more."""
    for name in _sources - sources.keys():
        for metric in (SOURCE_UP, SOURCE_CONNECTIONS):
            metric.remove(name)
    _sources.clear()
    _sources.update(sources)
    for name, (answers, connections) in sources.items():
        SOURCE_UP.labels(name).set(answers)
        SOURCE_CONNECTIONS.labels(name).set(connections)


def count_ended_job(state: str, job: LifecycleData) -> None:
    """Count a job that has ended in ``state``."""
    JOBS.labels(state=state, **job_labels(job.export_type, job.format)).inc()
    if job.error is not None:
        FAILURES.labels("service" if is_failure_of_service(job.error.code) else "request").inc()
        labels = job_labels(job.export_type, job.format)
        FAILURES_BY_CODE.labels(code=code_label(job.error.code), **labels).inc()


def observe_export(outcome: LifecycleData, began: float) -> None:
    """Measure a completed attempt. ``began`` is its start by :func:`time.monotonic`."""
    seconds = time.monotonic() - began
    format_ = job_labels(outcome.export_type, outcome.format)["format"]
    rows = outcome.row_count or 0
    DURATION.labels(format_).observe(seconds)
    ROWS.labels(format_).observe(rows)
    BYTES.labels(format_).observe(outcome.file_size or 0)
    if rows:
        RATE.labels(format_).observe(rows / max(seconds, 0.001))


def observe_admission(asked: datetime | None) -> None:
    """Measure the time from ``asked``, the time of a request, until now."""
    if asked is not None:
        ADMISSION_LAG.observe(max(0.0, (datetime.now(UTC) - asked).total_seconds()))


def count_delivery(channel: str, status: str) -> None:
    """Count an attempt of a delivery. The status ``pending`` means that it was postponed."""
    DELIVERIES.labels(channel, "postponed" if status == "pending" else status).inc()


def set_queue(jobs: Mapping[tuple[str, str, str], int] | None, oldest: float | None) -> None:
    """Set the numbers of jobs by state, dataset and format, or ``None`` if the database did not answer."""
    QUEUE_READ.set(jobs is not None)
    UNFINISHED.clear()
    for (state, dataset, format_), count in (jobs or {}).items():
        UNFINISHED.labels(state=state, **job_labels(dataset, format_)).inc(count)
    OLDEST_PENDING.set(max(0.0, oldest) if oldest is not None else float("nan"))


def set_operations(
    schedules: Mapping[str, int] | None, deliveries_waiting: int | None, paused: Collection[str]
) -> None:
    """Set the numbers of schedules and deliveries, and what is paused; ``None``: they could not be read."""
    SCHEDULES.clear()
    for state, count in (schedules or {}).items():
        SCHEDULES.labels(state).set(count)
    DELIVERIES_WAITING.set(float("nan") if deliveries_waiting is None else deliveries_waiting)
    PAUSED.clear()
    for scope in paused:
        PAUSED.labels(scope).set(1)


def observe_call(method: str, route: str | None, status: int, seconds: float) -> None:
    """Measure a call of the API. A path that no route has is :data:`OTHER`, so that labels stay few."""
    name = route or OTHER
    HTTP_REQUESTS.labels(method, name, str(status)).inc()
    HTTP_SECONDS.labels(method, name).observe(seconds)


def set_consumer_lag(behind: Mapping[str, int]) -> None:
    """Set the number of unprocessed messages of each topic. Topics that are not in ``behind`` have none."""
    for topic in CONSUMED_TOPICS:
        CONSUMER_LAG.labels(topic).set(behind.get(topic, 0))


async def measure_loop_lag() -> None:
    """Measure the lag of the running event loop, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOP_LAG_INTERVAL
        await asyncio.sleep(LOOP_LAG_INTERVAL)
        LOOP_LAG.observe(max(0.0, loop.time() - due))


@contextmanager
def count_errors(part: str) -> Iterator[None]:
    """Count the exceptions of the service that errors of ``part`` cause: each once, also in nested blocks."""
    try:
        yield
    except ExporterError as error:
        if error.__cause__ is not None and not error.counted:
            error.counted = True
            kind = "refused" if isinstance(error, Rejected) else error.code
            ERRORS.labels(part, kind).inc()
        raise


def registry_for(process: str) -> CollectorRegistry:
    """Return one registry with all metrics of a ``worker`` or an ``api``."""
    together = CollectorRegistry()
    for registry in REGISTRIES[process]:
        together.register(registry)
    return together
