"""Plug-ins for streaming-exporter: the format ``tsv``."""
