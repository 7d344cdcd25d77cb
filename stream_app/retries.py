"""Waiting out outages: try until it works, a little less often each time."""

import stamina

from streaming_exporter.errors import Retryable

retry_until_possible = stamina.AsyncRetryingCaller(
    attempts=None, timeout=None, wait_initial=0.2, wait_max=5
).on(Retryable)
"""``await retry_until_possible(function, …)`` calls it for as long as it raises :class:`Retryable`."""
