"""What the codes of errors mean, for operators, who do not see the texts of users' requests."""

from stream_app.messages.catalogue import DEFAULT, messages

CLOSED = "only the user of the job can see the reason"
LOG = "the logs have the details (the line `job.failed` or `job.postponed` with the id of the job)"


def meaning_of(code: str) -> str:
    """Return what the code of a job's error means, and where an operator finds the details."""
    found = messages(DEFAULT).get(f"errors.{code}")
    return f"{found} {LOG[0].upper()}{LOG[1:]}" if isinstance(found, str) else CLOSED
