"""Plug-ins for streaming-exporter: the format ``tsv`` and the mask ``iban``."""
