"""Creates the tables of the outbox."""

from typing import Any, ClassVar

from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    """Both tables."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="OutboxEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("job_id", models.UUIDField()),
                ("type", models.CharField(max_length=100)),
                ("payload", models.TextField()),
                ("size", models.IntegerField()),
                ("created_at", models.DateTimeField(default=timezone.now)),
                ("refusal", models.TextField(null=True)),
            ],
            options={"db_table": "exporter_outbox"},
        ),
        migrations.CreateModel(
            name="OutboxLease",
            fields=[
                ("name", models.CharField(max_length=50, primary_key=True, serialize=False)),
                ("owner", models.CharField(max_length=200, null=True)),
                ("version", models.BigIntegerField()),
            ],
            options={"db_table": "exporter_outbox_lease"},
        ),
    ]
