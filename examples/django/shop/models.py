"""The exports that the shop has requested."""

from django.db import models


class Export(models.Model):
    """One export; its status and its files are the service's."""

    job_id = models.UUIDField(primary_key=True)
    requested_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-requested_at",)
