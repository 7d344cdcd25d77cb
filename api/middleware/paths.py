"""What the addresses of calls tell: which are probes, which need a token, which are streams. Pure."""

import re

HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for all the time, by machines."""

_SECRET = re.compile(r"/(links|unsubscribe)/.*", re.DOTALL)
_WITH_LINK = re.compile(r"/exports/(links|unsubscribe)(/|$)")


def loggable(path: str) -> str:
    """The path without the token of a mail's link, which gives access to the file."""
    return _SECRET.sub(r"/\1/…", path)


def needs_token(path: str) -> bool:
    """Whether everything at ``path`` is for bearers of tokens; a link of a mail is its own right."""
    return path.startswith("/exports") and not _WITH_LINK.match(path)


def is_stream(method: str, path: str) -> bool:
    """Whether the answer lasts for as long as the client stays."""
    return method == "GET" and path.startswith("/exports") and path.endswith("/events")
