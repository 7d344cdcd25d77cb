"""The jobs' table, for those who write to it."""

from stream_app.jobs.claims import Claim, Claims, Progress
from stream_app.jobs.requests import Requests
from stream_app.jobs.transactions import WAKE_CHANNEL

__all__ = ["WAKE_CHANNEL", "Claim", "JobStore", "Progress"]


class JobStore(Requests, Claims):
    """All statements that change ``export_jobs``, but for the projection.

    Every method raises :class:`~stream_app.errors.Retryable` while the database cannot be reached.
    """
