"""The spans of unusual calls and of failed calls."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Receive, Scope, Send

from api.middleware.request_context import RequestContext
from stream_app.observability import tracing


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("a secret")


@pytest.mark.parametrize(
    ("method", "told", "name"),
    [("GET", "GET", "GET"), ("BREW-1", "_OTHER", "HTTP"), ("get", "_OTHER", "HTTP")],
)
async def test_the_span_of_a_failed_call_has_its_error(
    monkeypatch: pytest.MonkeyPatch, method: str, told: str, name: str
) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    scope = {"type": "http", "method": method, "path": "/x", "scheme": "http", "headers": []}

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    await RequestContext(broken)(scope, receive, send)
    (span,) = memory.get_finished_spans()
    assert (span.name, (span.attributes or {})["http.request.method"]) == (name, told)
    assert (span.attributes or {})["error.type"] == "KeyError"
    assert (span.attributes or {})["http.response.status_code"] == 500
    assert sent
