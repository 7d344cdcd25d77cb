"""The object store: its client, uploads, listing and lifecycle rules."""
