"""How long the files of datasets are kept. Pure."""

from collections.abc import Mapping
from datetime import timedelta

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.models import Dataset


def retention_of(dataset: Dataset | None, default_days: float) -> timedelta:
    """Return how long files of ``dataset`` are kept; ``None`` is a dataset that is not in the file any more.

    A bundle is kept as long as the files of the dataset that keeps them for the shortest time.
    ``default_days`` is the setting ``EXPORTER_RETENTION_DAYS``.
    """
    if isinstance(dataset, Bundle):
        return min(retention_of(member, default_days) for member in dataset.members)
    own = None if dataset is None else dataset.retention_days
    return timedelta(days=default_days if own is None else own)


def longest_retention(datasets: Mapping[str, Dataset], default_days: float) -> timedelta:
    """Return the longest time for which a file can be kept, whatever its dataset is."""
    return max(retention_of(item, default_days) for item in (None, *datasets.values()))
