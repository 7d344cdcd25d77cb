"""Measures how the service scales with workers on one machine, and with the jobs in its table."""
