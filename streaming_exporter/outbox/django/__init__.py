"""The outbox as a Django app: add ``streaming_exporter.outbox.django`` to ``INSTALLED_APPS``, then migrate.

``request_export`` writes the request inside of ``transaction.atomic``; ``manage.py relay_exports`` publishes
what waits. Needs the extras ``django`` and ``kafka``.
"""

from streaming_exporter.outbox.django.requests import cancel_export, request_export

__all__ = ["cancel_export", "request_export"]
