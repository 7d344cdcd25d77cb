"""Where spans go: OpenTelemetry's SDK, set up by its own variables, as its specification has them.

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
"""How long the last spans may take when a process ends; a back end that is away keeps none from its end."""

PACKAGE = "streaming-exporter-service"


def requested_exporters(environ: Mapping[str, str]) -> list[str]:
    """Names of exporters; none: tracing is off.

    The specification's default is to send to a collector on this machine. Here somebody must say so: by an
    exporter's name, or by where the collector is.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = "otlp" if any(environ.get(name) for name in places) else "none"
    said = environ.get("OTEL_TRACES_EXPORTER", "").strip() or default
    return [name for part in said.split(",") if (name := part.strip()) not in ("", "none")]


@contextmanager
def exporting_spans(service: str, instance: str) -> Iterator[None]:
    """Send spans, if that is asked for, until the block ends, as ``service`` if no variable has a name."""
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
    """Set up as the variables say; ``None`` where they cannot be followed: work goes on without."""
    try:
        return _built(names, service, instance)
    except Exception as error:  # the SDK and exporters of others: what they raise is not documented
        log.error(
            "tracing.setup_failed",
            error=f"{type(error).__name__}: {error}",
            correct=f"what is installed (the extra {PACKAGE}[tracing]), or one of these variables",
            variables=sorted(name for name in os.environ if name.startswith("OTEL_")),
        )
        return None


def _built(names: list[str], service: str, instance: str) -> "TracerProvider":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # One line for each batch that is lost is enough: there are more for each time that it is tried.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    own = {"service.name": service, "service.version": version(PACKAGE), "service.instance.id": instance}
    resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporters = [_exporter(name) for name in names]
    for exporter in exporters:  # all are there: a processor has a thread, which nobody would end
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
    """Send what is left, for a while: the SDK would wait for half a minute."""
    last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    last.start()
    last.join(SHUTDOWN_SECONDS)
    if last.is_alive():
        log.warning("tracing.spans_lost", seconds=SHUTDOWN_SECONDS)
