"""The whole system on one machine: real servers from packages, no Docker. Not for production."""
