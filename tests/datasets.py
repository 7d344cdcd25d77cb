"""Datasets for tests that need no table of them."""

from stream_app.datasets.models import Dataset


def datasets_of(*names: str) -> dict[str, Dataset]:
    """Return datasets with these names, whose rows belong to users."""
    return {name: Dataset(name=name, table=name, owner="user_id", time="created_at") for name in names}
