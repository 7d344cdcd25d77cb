"""Programs that publish events: the ``exporter`` command and the ticker."""
