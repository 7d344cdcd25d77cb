"""Set-up of tracing: OpenTelemetry's SDK, configured by the standard variables of its specification.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING

import structlog

from stream_app.observability import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger(__name__)

SHUTDOWN_SECONDS = 2.0
"""Time-out of sending the last spans when a process ends: an unavailable back end must not delay it."""

PACKAGE = "streaming-exporter-service"


def requested_exporters(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters. If there are none, tracing is off.

    The specification's default is a collector on this machine. Here tracing must be requested: by the name
    of an exporter, or by the address of the collector.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = "otlp" if any(environ.get(name) for name in places) else "none"
    names = environ.get("OTEL_TRACES_EXPORTER", "").strip() or default
    return [name for part in names.split(",") if (name := part.strip()) not in ("", "none")]


@contextmanager
def exporting_spans(service: str, instance: str) -> Iterator[None]:
    """Send spans until the block ends, if tracing is requested. ``service`` is the default service name."""
    names = requested_exporters(os.environ)
    provider = _provider(names, service, instance) if names else None
    if provider is None:
        yield
        return
    tracing.tracer = provider.get_tracer(PACKAGE, version(PACKAGE))
    log.info("tracing.started", exporters=names, service=provider.resource.attributes["service.name"])
    try:
        yield
    finally:
        tracing.tracer = None
        _shut_down(provider)


def _provider(names: list[str], service: str, instance: str) -> "TracerProvider | None":
    """Set up the SDK and return it; ``None`` if that fails. Then the process works without tracing."""
    try:
        return _built(names, service, instance)
    except Exception as error:  # errors of the SDK and of exporters are not documented
        log.error(
            "tracing.setup_failed",
            error=f"{type(error).__name__}: {error}",
            correct=f"the installed packages (the extra {PACKAGE}[tracing]), or one of these variables",
            variables=sorted(name for name in os.environ if name.startswith("OTEL_")),
        )
        return None


def _built(names: list[str], service: str, instance: str) -> "TracerProvider":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # One line for each lost batch is enough. The library also logs each of its tries.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    own = {"service.name": service, "service.version": version(PACKAGE), "service.instance.id": instance}
    resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporters = [_exporter(name) for name in names]
    for exporter in (
        exporters
    ):  # last, because a processor has a thread, which would keep running after an error of another exporter
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(name: str) -> "SpanExporter":
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    wanted = f"otlp_proto_{protocol.partition('/')[0]}" if name == "otlp" else name
    known = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    if wanted not in known:
        raise LookupError(f"no exporter {wanted!r} is installed, only {', '.join(sorted(known)) or 'none'}")
    exporter: SpanExporter = known[wanted].load()()
    return exporter


def _shut_down(provider: "TracerProvider") -> None:
    """Send the last spans, with a time limit: the SDK's own limit is half a minute."""
    last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    last.start()
    last.join(SHUTDOWN_SECONDS)
    if last.is_alive():
        log.warning("tracing.spans_lost", seconds=SHUTDOWN_SECONDS)
