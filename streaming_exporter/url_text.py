"""Shows URLs in texts without the secrets that they can have. Pure."""

import re

HIDDEN = "***"

_HOSTS = re.compile(
    r"(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?(?:,(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?)*", re.I
)


def hide_credentials(text: str) -> str:
    """Return a text without the user, the password, the query and the fragment of the URL that it can be.

    A password is not always percent-encoded: where ``?`` or ``#`` comes before an ``@``, it is not known
    where the password ends, so only the scheme is left.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "", text
    head = re.split("[?#]", rest, maxsplit=1)[0]
    tail = rest[len(head) :]
    if "@" in tail:
        return f"{scheme}{found}{HIDDEN}"
    user, at, place = head.rpartition("@")
    if at and (found or ":" in user):  # otherwise it is a mail address
        head = f"{HIDDEN}@{place}"
    return f"{scheme}{found}{head}{tail and tail[0] + HIDDEN}"


def scheme_and_hosts(url: str) -> str | None:
    """Return ``scheme://***@host:port`` of a URL with a user; ``None`` where the host is not clear."""
    scheme, found, rest = url.partition("://")
    head = re.split("[?#]", rest, maxsplit=1)[0]
    _, at, place = head.rpartition("@")
    hosts = place.partition("/")[0]
    if not found or not scheme.isalnum() or not at or "@" in rest[len(head) :] or not _HOSTS.fullmatch(hosts):
        return None
    return f"{scheme}://{HIDDEN}@{hosts}"
