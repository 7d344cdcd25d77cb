"""Destinations of the datasets file: places that finished files are sent to. Pure."""

from collections.abc import Mapping

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Entry, Name
from streaming_exporter.errors import Rejected


class Destination(Entry):
    """A place that finished files are sent to."""

    name: Name


def find_destination(
    destinations: Mapping[str, Destination], name: str, caller: Caller, export_type: str
) -> Destination:
    """Return the destination ``name`` if it exists for the caller and the dataset.

    Raises:
        Rejected: there is no such destination, or it is not for them; both have the same text.
    """
    destination = destinations.get(name)
    if destination is None:
        raise unknown_destination(name)
    return destination


def unknown_destination(name: str) -> Rejected:
    """Return the error for a destination that does not exist for the caller."""
    return Rejected(f"there is no destination {name!r}", code="unknown_destination", field="destination")
