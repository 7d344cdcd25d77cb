"""Mails and webhooks about finished jobs: the outbox, the sender and its channels."""
