"""Serves the metrics of a worker over HTTP."""

import prometheus_client
import structlog

from stream_app.observability.metrics import registry_for

log = structlog.get_logger(__name__)


def serve_metrics(host: str, port: int) -> None:
    """Serve a worker's metrics over HTTP in a thread, until the process ends.

    If the address cannot be used, the worker works without metrics. Prometheus reports the missing target.
    """
    try:
        prometheus_client.start_http_server(port, host, registry_for("worker"))
    except OSError as error:
        log.error("metrics.listen_failed", host=host, port=port, error=str(error))
