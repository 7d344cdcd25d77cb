"""The datasets and bundles that the service has at the moment."""

from collections.abc import Iterator, Mapping

from stream_app.datasets.destinations import Destination
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import Dataset, SourceSettings


class Datasets(Mapping[str, Dataset]):
    """The datasets and bundles by name. The content can be replaced while the service runs."""

    def __init__(self, content: DatasetsFile) -> None:
        self._content = content
        self._requestable = content.requestable

    @property
    def content(self) -> DatasetsFile:
        """The datasets file as it was read last."""
        return self._content

    @property
    def sources(self) -> Mapping[str, SourceSettings]:
        """The sources besides the default one, by name."""
        return self._content.sources

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """The destinations by name."""
        return self._content.destinations

    def destination(self, name: str | None) -> Destination | None:
        """Return a destination, or ``None`` without a name or without such a destination."""
        return None if name is None else self.destinations.get(name)

    def replace(self, content: DatasetsFile) -> None:
        """Use ``content`` from now on."""
        self._content, self._requestable = content, content.requestable

    def __getitem__(self, name: str) -> Dataset:
        return self._requestable[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._requestable)

    def __len__(self) -> int:
        return len(self._requestable)
