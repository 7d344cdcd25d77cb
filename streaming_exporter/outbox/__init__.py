"""The outbox: requests that are written in the caller's own transaction, and the relay that publishes them.

A program writes the request into a table of its own database, in the transaction that it is about. What is
rolled back is never requested; what is committed is published at least once. The relay may publish an event
twice, and the service treats the second one as the same job, because the event's id is the job's id.

- :mod:`~streaming_exporter.outbox.sqlalchemy`: ``request_export`` and ``cancel_export`` for SQLAlchemy (extra
  ``sqlalchemy``).
- :mod:`~streaming_exporter.outbox.django`: the same for Django, an app with migrations (extra ``django``).
- :mod:`~streaming_exporter.outbox.relay`: the relay, for both (extra ``kafka``).
- ``python -m streaming_exporter.outbox relay``: the relay as a program.
"""
