"""Kinds of paths: health checks, paths that need a token, event streams, paths with secrets. Pure."""

import re

HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that monitoring calls every few seconds."""

_SECRET = re.compile(r"/(links|unsubscribe)/.*", re.DOTALL)
_WITH_LINK = re.compile(r"/exports/(links|unsubscribe)(/|$)")


def loggable(path: str) -> str:
    """Return the path without the token of a mail's link, which gives access to the file."""
    return _SECRET.sub(r"/\1/…", path)


def needs_token(path: str) -> bool:
    """Return whether calls of ``path`` need a bearer token. A link of a mail needs none."""
    return path.startswith("/exports") and not _WITH_LINK.match(path)


def is_stream(method: str, path: str) -> bool:
    """Return whether the response lasts until the client disconnects."""
    return method == "GET" and path.startswith("/exports") and path.endswith("/events")
