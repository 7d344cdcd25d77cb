"""Which hosts and URLs lead to this machine and to no other. Pure."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_local_url(url: str) -> bool:
    """Whether ``url`` (or host and port) leads to this machine."""
    return is_loopback(urlsplit(url if "://" in url else f"//{url}").hostname or "")
