"""The worker: message handlers, the dispatcher, the job runner, health and maintenance."""
