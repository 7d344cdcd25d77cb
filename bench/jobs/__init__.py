"""Latency and throughput of small exports, from the publication of the request to the final event."""
