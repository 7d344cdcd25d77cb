"""Migrations of the outbox. They only add."""
