"""The client library of streaming-exporter: the event contract, a publisher and clients of the HTTP API.

- :mod:`~streaming_exporter.events`, :mod:`~streaming_exporter.payloads`: the events and their data.
- :mod:`~streaming_exporter.publisher`: publishes requests and cancellations to Kafka (extra ``kafka``).
- :mod:`~streaming_exporter.client` and :mod:`~streaming_exporter.async_client`: call the HTTP API
  (extra ``http``).
- :mod:`~streaming_exporter.outbox`: requests in the caller's own transaction, and the relay for them.
- :mod:`~streaming_exporter.errors`: every error that they raise.
"""
