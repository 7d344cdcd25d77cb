"""Devices that users enrolled, with their keys."""

from stream_app.exports.datasets.base import Dataset

ENROLLMENTS = Dataset(
    name="enrollments",
    table="public.enrollments",
    description="Devices enrolled by users, with their keys and status",
    owner="user_id",
    time="created_at",
)
