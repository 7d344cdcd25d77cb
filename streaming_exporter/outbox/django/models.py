"""The tables of the outbox, the same as those of :mod:`streaming_exporter.outbox.tables`."""

from django.db import models
from django.utils import timezone

from streaming_exporter.outbox.entries import LEASE_TABLE, TABLE


class OutboxEvent(models.Model):
    """An event that waits to be published; the relay deletes it once Kafka has it."""

    id = models.BigAutoField(primary_key=True)
    job_id = models.UUIDField()
    type = models.CharField(max_length=100)
    payload = models.TextField()
    size = models.IntegerField()
    created_at = models.DateTimeField(default=timezone.now)
    refusal = models.TextField(null=True)

    class Meta:
        app_label = "exporter_outbox"
        db_table = TABLE


class OutboxLease(models.Model):
    """The relay that publishes now; a single row."""

    name = models.CharField(primary_key=True, max_length=50)
    owner = models.CharField(max_length=200, null=True)
    version = models.BigIntegerField()

    class Meta:
        app_label = "exporter_outbox"
        db_table = LEASE_TABLE
