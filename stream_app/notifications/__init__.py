"""Deliveries about finished jobs: the outbox, the sender and the clients of its channels."""
