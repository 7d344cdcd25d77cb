"""Serves the metrics of a worker over HTTP."""

import prometheus_client
import structlog

from stream_app.observability.metrics import registry_for

log = structlog.get_logger(__name__)


def start_metrics_server(host: str, port: int) -> None:
    """Start a thread that serves a worker's metrics over HTTP until the process ends.

    If the address cannot be used, the worker works without metrics. Prometheus reports the missing target.
    """
    try:
        prometheus_client.start_http_server(port, host, registry_for("worker"))
    except OSError as error:
        log.error("metrics.listen_failed", host=host, port=port, error=str(error))
