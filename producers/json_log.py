"""Log lines as JSON objects, as the services write them, with the standard library alone."""

import json
import logging
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Writes ``event: text`` as one JSON object in one line: the event, and the text as ``detail``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        event, _, detail = record.getMessage().partition(": ")
        line = {
            "event": event,
            **({"detail": detail} if detail else {}),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            **({"exception": self.formatException(record.exc_info)} if record.exc_info else {}),
        }
        return json.dumps(line, ensure_ascii=False)
