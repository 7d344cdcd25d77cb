"""Each service: real calls, and the same data on the same port after a crash."""

import asyncio
import io
import smtplib
from email.message import EmailMessage

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from dev.postgres import SOURCE
from dev.s3 import BUCKET
from dev.stack import Stack
from tests.waiting import patient


def test_settings_lead_to_every_service(fragile: Stack) -> None:
    assert set(fragile.settings()) >= {
        "EXPORTER_KAFKA_BOOTSTRAP_SERVERS", "EXPORTER_DATABASE_URL", "EXPORTER_SOURCE_DATABASE_URL",
        "EXPORTER_S3_ENDPOINT", "EXPORTER_S3_ACCESS_KEY", "EXPORTER_S3_SECRET_KEY", "EXPORTER_S3_BUCKET",
        "EXPORTER_SMTP_HOST", "EXPORTER_SMTP_PORT", "EXPORTER_JWT_SECRET",
    }  # fmt: skip
    assert set(fragile.pids()) == {"kafka", "postgres", "s3", "smtp"}


@pytest.mark.slow
async def test_kafka_keeps_its_topics_over_a_crash(fragile: Stack) -> None:
    servers = fragile.kafka.address
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic("kept", num_partitions=2, replication_factor=1)])
    await admin.close()
    await _send(servers, b"before")

    await asyncio.to_thread(fragile.kafka.kill)
    assert not fragile.kafka.running
    await asyncio.to_thread(fragile.kafka.restart)

    assert fragile.kafka.address == servers
    await _send(servers, b"after")
    consumer = AIOKafkaConsumer("kept", bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        values = [(await asyncio.wait_for(consumer.getone(), patient(30))).value for _ in range(2)]
    finally:
        await consumer.stop()
    assert values == [b"before", b"after"]


async def _send(servers: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait("kept", value, partition=0)


async def test_kafka_creates_no_topics_by_itself(fragile: Stack) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=fragile.kafka.address)
    await admin.start()
    try:
        await admin.describe_topics(["never-made"])
        assert "never-made" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_postgres_keeps_its_rows_over_a_crash(fragile: Stack) -> None:
    url = fragile.postgres.state_url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()

    await asyncio.to_thread(fragile.postgres.kill)
    await asyncio.to_thread(fragile.postgres.restart)

    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT answer FROM kept") == 42
    assert await connection.fetchval("SHOW TimeZone") == "UTC"
    await connection.close()


async def test_the_source_role_reads_and_cannot_write(fragile: Stack) -> None:
    connection = await asyncpg.connect(fragile.postgres.source_url)
    assert await connection.fetchval("SELECT count(*) FROM ledger") == 500
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM ledger")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TABLE mine (id int)")
    await connection.close()


async def test_postgres_requires_the_password(fragile: Stack) -> None:
    port = fragile.postgres.port
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{port}/{SOURCE}")


def test_s3_keeps_its_objects_over_a_crash(fragile: Stack) -> None:
    data = bytes(range(256)) * 40_000
    fragile.s3.client().put_object(
        bucket_name=BUCKET, object_name="kept", data=io.BytesIO(data), length=len(data)
    )
    fragile.s3.kill()
    fragile.s3.restart()
    answer = fragile.s3.client().get_object(bucket_name=BUCKET, object_name="kept")
    try:
        assert answer.read() == data
    finally:
        answer.close()
    assert [it.object_name for it in fragile.s3.client().list_objects(bucket_name=BUCKET)] == ["kept"]


def test_s3_has_room_for_many_buckets(fragile: Stack) -> None:
    client = fragile.s3.client()
    for number in range(15):
        client.make_bucket(bucket_name=f"many-{number}")
        client.put_object(bucket_name=f"many-{number}", object_name="o", data=io.BytesIO(b"x"), length=1)


def test_smtp_stores_every_mail_unchanged(fragile: Stack) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Ünïcödé", "exports@localhost", "ops@example.com"
    mail.set_content("Привет\n.\nfrom a line with a dot")
    with smtplib.SMTP("127.0.0.1", fragile.smtp.port) as client:
        client.send_message(mail, to_addrs=["ops@example.com", "hidden@example.com"])
    (kept,) = fragile.smtp.mails()
    assert kept["Subject"] == "Ünïcödé"
    assert kept["X-Envelope-To"] == "ops@example.com, hidden@example.com"
    assert kept.get_content().splitlines() == ["Привет", ".", "from a line with a dot"]
    fragile.smtp.kill()
    fragile.smtp.restart()
    assert len(fragile.smtp.mails()) == 1
