"""Types of settings: each parses a text; an error states what is wrong with it and what is allowed."""

import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from streaming_exporter.url_text import hide_credentials

_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.I
)
_PORTS = range(1, 65_536)

WEB_URL = "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"
"""The form of a URL, as the errors state it."""

_SERVERS = "HOST:PORT, separated by commas"


def one_line(text: str) -> str:
    """Return the text without outer blanks.

    Raises:
        ValueError: it holds control characters, such as a line break.
    """
    text = text.strip()
    if not text.isprintable():
        raise ValueError("it has control characters; allowed: one line of printable characters")
    return text


def servers(text: str) -> str:
    """Return brokers as ``host:port``, separated by commas; the default port is 9092.

    Raises:
        ValueError: an entry is not a server, or there is no entry.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise ValueError(f"it names no server; allowed: {_SERVERS}")
    return ",".join(_server(part) for part in found)


def any_web_url(text: str) -> str:
    """Return an absolute URL unchanged; it can have a query.

    Raises:
        ValueError: it is no absolute URL.
    """
    parse_web_url(text)
    return text


def existing_file(path: Path) -> Path:
    """Return the path of a file that can be read.

    Raises:
        ValueError: the file does not exist or cannot be read.
    """
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror}); allowed: the path of a file") from error


def in_case(change: Callable[[str], str]) -> WrapValidator:
    """Return a validator that changes the case of a word with ``change``.

    An error shows the word as it was given.
    """

    def parsed(value: object, parse: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, str):
            with suppress(ValidationError):
                return parse(change(value))
        return parse(value)

    return WrapValidator(parsed)


def _server(text: str) -> str:
    if "://" in text:
        raise ValueError(f"{hide_credentials(text)!r} has a scheme; allowed: {_SERVERS}")
    name, colon, port = text.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):
        name, port = text, "9092"
    if not is_host(name) or not is_port(port):
        raise ValueError(f"{hide_credentials(text)!r} is not a server; allowed: {_SERVERS}")
    return f"{name}:{int(port)}"


def parse_web_url(text: str) -> SplitResult:
    """Split an http or https URL; scheme and host become lower case.

    Raises:
        ValueError: it has another scheme, or is not valid; see :func:`parse_url`.
    """
    parts = parse_url(text, WEB_URL)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"it does not begin with http:// or https://; allowed: {WEB_URL}")
    return parts


def parse_url(text: str, allowed: str) -> SplitResult:
    """Split a URL; scheme and host become lower case.

    Raises:
        ValueError: it has no host, or its port is not a valid number.
    """
    if not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"it has blanks, backslashes or control characters; allowed: {allowed}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its text can quote a part of a password
        raise ValueError(f"it is not a URL, or its port is not valid; allowed: {allowed}") from None
    name = parts.hostname or ""
    if not is_host(name) or (port is None and parts.netloc.endswith(":")) or port == 0:
        raise ValueError(f"it has no host, or its port is not valid; allowed: {allowed}")
    if "@" in parts.netloc:
        raise ValueError(f"it has a user name; allowed: {allowed}")
    return parts._replace(netloc=parts.netloc.lower())


def is_host(text: str) -> bool:
    """Return whether a text is a host name, an IPv4 address, or an IPv6 address with or without brackets."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in inner:
        try:
            IPv6Address(inner)
        except ValueError:
            return False
        return True
    return inner == text and _HOST.fullmatch(text) is not None


def is_port(text: str) -> bool:
    """Return whether a text is a port number from 1 to 65535."""
    return text.isascii() and text.isdecimal() and int(text) in _PORTS


Count = Annotated[int, Field(ge=1, le=2_147_483_647)]
Text = Annotated[str, AfterValidator(one_line)]
Servers = Annotated[str, AfterValidator(servers)]
AnyWebUrl = Annotated[str, AfterValidator(any_web_url)]
ExistingFile = Annotated[Path, AfterValidator(existing_file)]
