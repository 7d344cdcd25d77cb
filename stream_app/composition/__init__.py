"""Builds a worker: the only place where its components are created and connected."""
