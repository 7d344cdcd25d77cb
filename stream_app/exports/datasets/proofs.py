"""Proofs of captured assets."""

from stream_app.exports.datasets.base import Dataset

PROOFS = Dataset(
    name="proofs",
    table="public.proofs",
    description="Proofs of captured assets: hashes, signatures, times, metadata",
    owner="user_id",
    time="created_at",
)
