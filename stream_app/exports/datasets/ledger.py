"""The hash-chained ledger."""

from stream_app.exports.datasets.base import Dataset

LEDGER = Dataset(
    name="ledger",
    table="public.ledger",
    description="Entries of the hash-chained ledger",
    owner="user_id",
    time="created_at",
)
