"""``exporter doctor``: it checks settings, databases, topics, bucket and clocks, and changes nothing."""
