"""Creates the table of the exports."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """The first one."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Export",
            fields=[
                ("job_id", models.UUIDField(primary_key=True, serialize=False)),
                ("requested_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ("-requested_at",)},
        )
    ]
