"""Who is told how a job ended: mails and webhooks, and the ledger of what was sent."""
