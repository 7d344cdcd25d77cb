"""Encodes requests and cancellations, and refuses those that the service could not read. Does no I/O."""

from pydantic_core import PydanticSerializationError

from streaming_exporter.errors import TooLarge, Unreadable
from streaming_exporter.events import Event, decode

MAX_EVENT_BYTES = 1_000_000
"""The largest event of an outbox. Kafka's default limit is 1 MiB, with the key and the headers."""


def encode_checked(event: Event, limit: int = MAX_EVENT_BYTES) -> bytes:
    """Return the event as the value of a Kafka message.

    Raises:
        Unreadable: the service could not read the event, for example because of a NUL character.
        TooLarge: the event has more bytes than ``limit``.
    """
    try:
        content = event.encode()
    except (PydanticSerializationError, UnicodeError) as error:
        raise Unreadable("a text in the request is not valid Unicode") from error
    if len(content) > limit:
        raise TooLarge(f"the request has {len(content):,} bytes; allowed: {limit:,}. Shorten its filters")
    decode(content)  # refuse now what the service would refuse later
    return content
