"""The error for a row that is longer than the limit. Pure."""

from streaming_exporter.errors import Rejected


class MessageTooLong(Rejected):
    """A row is longer than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"a row has more than {limit:,} bytes, the limit for one row; leave out its largest column, "
            "or exclude the row with a filter",
            code="value_too_large",
        )
