"""The outbox as a Django app: migrations, atomic blocks, the relay, the example of docs/outbox.md."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import django
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from sqlalchemy import create_engine, inspect, make_url

from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.errors import UsageError
from streaming_exporter.kafka_connection import ensure_topics
from streaming_exporter.outbox.django import cancel_export, request_export
from streaming_exporter.outbox.tables import metadata
from tests.documents import BLOCKS
from tests.integration.outbox.conftest import REQUEST, events_of, url_for
from tests.state_databases import create_database, with_database


@pytest.fixture(scope="module")
def migrated(stack: Stack, settings: Settings) -> Iterator[Settings]:
    """Settings with a database that Django has migrated; Django is set up for it."""
    name = f"django_{uuid4().hex}"
    asyncio.run(create_database(stack, name))
    asyncio.run(ensure_topics(settings))
    own = with_database(settings, name)
    url = make_url(own.database_url.get_secret_value())
    django_settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": url.host,
                "PORT": url.port,
                "NAME": name,
                "USER": url.username,
                "PASSWORD": url.password,
            }
        },
        INSTALLED_APPS=["streaming_exporter.outbox.django"],
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    yield own
    connections.close_all()


def published(settings: Settings, *jobs: UUID) -> list[UUID]:
    """Return the jobs among ``jobs`` that were requested, after the relay has published what waits."""
    call_command("relay_exports", "--once")
    return [event.job_id for event in asyncio.run(events_of(settings, set(jobs)))]


@pytest.fixture(autouse=True)
def _kafka(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.settings().items():
        if "KAFKA" in name:
            monkeypatch.setenv(name, value)


def test_what_an_atomic_block_commits_is_published_and_what_it_rolls_back_is_not(migrated: Settings) -> None:
    with transaction.atomic():
        kept = request_export(REQUEST, source="/services/shop")
        with suppress(ZeroDivisionError), transaction.atomic():
            undone = request_export(REQUEST)
            raise ZeroDivisionError
    with suppress(ZeroDivisionError), transaction.atomic():
        lost = request_export(REQUEST)
        raise ZeroDivisionError
    assert published(migrated, kept, undone, lost) == [kept]
    with transaction.atomic():
        cancel_export(kept, by="u")
    assert published(migrated, kept) == [kept, kept]


def test_outside_of_an_atomic_block_nothing_can_be_requested(migrated: Settings) -> None:
    with pytest.raises(UsageError, match=r"transaction\.atomic"):
        request_export(REQUEST)


def test_the_relay_explains_a_missing_table_and_an_unknown_database(migrated: Settings) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER TABLE exporter_outbox RENAME TO moved")
    try:
        with pytest.raises(
            CommandError, match=r"has no table exporter_outbox; `manage\.py migrate`"
        ) as caught:
            call_command("relay_exports", "--once")
        assert "relation" not in str(caught.value)
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("ALTER TABLE moved RENAME TO exporter_outbox")
    with pytest.raises(CommandError, match="no database 'absent'; allowed: default"):
        call_command("relay_exports", "--once", "--database", "absent")


def test_the_migrations_match_the_models_and_the_tables_of_sqlalchemy(migrated: Settings) -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    engine = create_engine(url_for(migrated, "psycopg"))
    found = inspect(engine)
    for table in metadata.sorted_tables:
        columns = {
            column["name"]: (str(column["type"]), column["nullable"])
            for column in found.get_columns(table.name)
        }
        assert columns == {
            column.name: (column.type.compile(engine.dialect).replace(" WITH TIME ZONE", ""), column.nullable)
            for column in table.columns
        }
    engine.dispose()


def test_the_example_of_the_document_requests_an_export(migrated: Settings) -> None:
    (example,) = (block for block in BLOCKS if block.test == "tests/integration/outbox/test_django_outbox.py")
    names: dict[str, Any] = {}
    exec(example.text, names)
    assert published(migrated, names["job_id"]) == [names["job_id"]]
