"""Filters of a request: their values, and the SQL conditions. Pure."""
