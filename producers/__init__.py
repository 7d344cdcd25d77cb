"""Puts events in: the publisher, the ticker and the ``exporter`` command."""
