"""The client library of streaming-exporter: the event contract, a publisher and clients of the HTTP API.

``ExportClient``, ``AsyncExportClient``, ``Publisher`` and ``ExportRequest`` can be imported from here.

- :mod:`~streaming_exporter.events`, :mod:`~streaming_exporter.payloads`: the events and their data.
- :mod:`~streaming_exporter.publisher`: publishes requests and cancellations to Kafka (extra ``kafka``).
- :mod:`~streaming_exporter.client` and :mod:`~streaming_exporter.async_client`: call the HTTP API
  (extra ``http``).
- :mod:`~streaming_exporter.outbox`: requests in the caller's own transaction, and the relay for them.
- :mod:`~streaming_exporter.errors`: every error that they raise.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming_exporter.async_client import AsyncExportClient
    from streaming_exporter.client import ExportClient
    from streaming_exporter.payloads import ExportRequest
    from streaming_exporter.publisher import Publisher

__all__ = ["AsyncExportClient", "ExportClient", "ExportRequest", "Publisher"]

_MODULES = {
    "AsyncExportClient": "async_client",
    "ExportClient": "client",
    "ExportRequest": "payloads",
    "Publisher": "publisher",
}


def __getattr__(name: str) -> object:
    """Import a class at its first use, so that an import of the package takes no time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
