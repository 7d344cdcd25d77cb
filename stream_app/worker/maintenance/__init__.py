"""Periodic services of a worker: one service in each file."""
