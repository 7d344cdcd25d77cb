"""The app's configuration."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """The app ``exporter_outbox``."""

    name = "streaming_exporter.outbox.django"
    label = "exporter_outbox"
    verbose_name = "Outbox of export requests"
    default_auto_field = "django.db.models.BigAutoField"
