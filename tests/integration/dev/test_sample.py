"""The sample is reproducible, has a valid hash chain, and contains difficult values."""

import hashlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dev import sample, sample_rows
from dev.cache import UsageError
from dev.postgres import SOURCE
from dev.stack import Stack


@pytest.fixture
async def source(fragile: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fragile.postgres.admin_url(SOURCE))
    yield connection
    await connection.close()


async def test_the_hash_chain_holds(source: asyncpg.Connection) -> None:
    assert await source.fetchval("SELECT count(*) FROM ledger_broken_links") == 0


async def test_a_changed_entry_breaks_the_chain(source: asyncpg.Connection) -> None:
    transaction = source.transaction()
    await transaction.start()
    await source.execute("UPDATE ledger SET amount = amount + 1 WHERE id = 7")
    assert await source.fetch("SELECT id FROM ledger_broken_links") == [(7,)]
    await transaction.rollback()


def test_the_chain_can_be_checked_without_the_database() -> None:
    previous = sample_rows.GENESIS
    for line in sample_rows.ledger(50, users=3):
        number, kind, user, subject, _, amount, sealed, payload, before, entry = line[:-1].split("\t")
        assert before == previous
        head = line[:-1].rsplit("\t", 2)[0].split("\t")
        assert len(head) == 8
        previous = entry
        created = sample_rows.ledger_moment(int(number), 50)
        text = "|".join(
            [before, number, kind, user, subject, str(created), amount, sealed, payload.replace("\\\\", "\\")]
        )
        assert hashlib.sha256(text.encode()).hexdigest() == entry


async def test_the_same_size_gives_the_same_rows(source: asyncpg.Connection) -> None:
    assert "".join(sample_rows.ledger(500, sample.USERS)) == "".join(sample_rows.ledger(500, sample.USERS))
    last = await source.fetchval("SELECT entry_hash FROM ledger ORDER BY id DESC LIMIT 1")
    assert list(sample_rows.ledger(500, sample.USERS))[-1].endswith(f"{last}\n")


@pytest.mark.parametrize("table", ["enrollments", "proofs", "ledger"])
async def test_tables_are_plausible(source: asyncpg.Connection, table: str) -> None:
    rows = await source.fetch(f"SELECT * FROM {table}")
    assert len(rows) >= 50
    assert {row["user_id"] for row in rows} <= {f"user-{number}" for number in range(1, sample.USERS + 1)}
    assert all(sample_rows.START <= row["created_at"] <= sample_rows.START + sample_rows.SPAN for row in rows)
    if table == "ledger":
        assert len(rows[0]) == 10


async def test_labels_are_stored_unchanged(source: asyncpg.Connection) -> None:
    rows = await source.fetch("SELECT DISTINCT label FROM proofs WHERE label IS NOT NULL")
    assert {row["label"] for row in rows} == set(sample_rows.LABELS)


async def test_loading_never_replaces_a_table(fragile: Stack) -> None:
    with pytest.raises(UsageError, match="already exists"):
        await sample.load(fragile.postgres.admin_url(SOURCE), 10)


def test_errors_of_the_command_are_one_line(fragile: Stack) -> None:
    assert (sample.main([]) or "").startswith("usage: ")
    assert "check that PostgreSQL runs" in (sample.main(["postgresql://exporter@127.0.0.1:1/exporter"]) or "")
    filled = sample.main([fragile.postgres.admin_url(SOURCE)]) or ""
    assert "needs a database without its tables" in filled
    assert "\n" not in filled
