"""A client that uses only the documented JSON gets its file."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from confluent_kafka import Producer

from dev.stack import Stack
from tests.e2e.conftest import System
from tests.e2e.tables import psql

QUERY = """
    SELECT id, customer_id, total, note, paid, placed_at, items FROM shop.orders
    WHERE customer_id = 'customer-3'
"""


def produce(stack: Stack, topic: str, message: str) -> None:
    """Publish with librdkafka, which shares no code with the service and chooses its own compression."""
    producer = Producer(
        {
            "bootstrap.servers": stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"],
            "compression.codec": "zstd",
        }
    )
    producer.produce(topic, message.encode())
    assert producer.flush(10) == 0


def test_a_foreign_producer_gets_a_file_equal_to_what_psql_prints(system: System) -> None:
    job_id = str(uuid4())
    event = {
        "specversion": "1.0",
        "id": job_id,
        "source": "/services/billing",
        "type": "export.requested",
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": {"user_id": "customer-3", "export_type": "orders", "format": "csv"},
    }
    produce(system.stack, "exports.requests", json.dumps(event))
    assert system.ended(job_id)["status"] == "completed"

    mine = list(csv.DictReader(io.StringIO(system.file(job_id).decode(), newline="")))
    printed = psql(
        system.stack,
        f"SET timezone = 'UTC'; COPY ({QUERY} ORDER BY placed_at, id) TO STDOUT (FORMAT csv, HEADER)",
    )
    theirs = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert len(mine) == len(theirs) == 72
    for row, expected in zip(mine, theirs, strict=True):
        assert list(row) == list(expected)
        assert datetime.fromisoformat(row.pop("placed_at")) == datetime.fromisoformat(
            expected.pop("placed_at") + ":00"
        )
        assert row.pop("paid") == {"t": "true", "f": "false"}[expected.pop("paid")]
        assert Decimal(row.pop("total")) == Decimal(expected.pop("total"))
        assert row == expected


def test_times_are_utc(system: System) -> None:
    job_id = system.ask(export_type="orders", format="ndjson", scope="all", filters={"id": 1})
    system.ended(job_id)
    (row,) = map(json.loads, system.file(job_id).splitlines())
    assert datetime.fromisoformat(row["placed_at"]) == datetime(2026, 1, 1, 1, 7, tzinfo=UTC)
