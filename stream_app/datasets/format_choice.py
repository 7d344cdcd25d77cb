"""The formats in which a dataset can be exported. Pure: it knows names of formats only."""

from collections.abc import Iterable

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.models import Dataset
from streaming_exporter.errors import Rejected


def allowed_formats(dataset: Dataset, formats: Iterable[str]) -> list[str]:
    """Return the names of ``formats``, those of the service, in which ``dataset`` can be exported."""
    return [name for name in formats if dataset.formats is None or name in dataset.formats]


def check_format(dataset: Dataset, name: str, formats: Iterable[str]) -> None:
    """Check that ``dataset`` can be exported in the format ``name``, one of ``formats``.

    Raises:
        Rejected: the datasets file does not allow it.
    """
    allowed = allowed_formats(dataset, formats)
    if name not in allowed:
        what = "bundle" if isinstance(dataset, Bundle) else "dataset"
        raise Rejected(
            f"{what} {dataset.name!r} cannot be exported as {name}",
            code="format_not_allowed",
            field="format",
            allowed=sorted(allowed),
        )


def unknown_formats(dataset: Dataset, formats: Iterable[str]) -> list[str]:
    """Return the names that the datasets file has for ``dataset`` and the service does not have."""
    return sorted(set(dataset.formats or ()) - set(formats))
