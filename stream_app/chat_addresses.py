"""Addresses of chats: a kind of chat, and the URL of one of its incoming webhooks. No I/O.

Everybody who knows such a URL can post to its channel, so it is a secret. Users see its host and a
short checksum.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"(slack|teams):(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)
_CUT = "…"


class Chat(StrEnum):
    """A kind of chat: the format of its messages."""

    SLACK = "slack"
    TEAMS = "teams"


@dataclass(frozen=True, slots=True)
class ChatAddress:
    """The address of a chat, such as ``slack:https://hooks.slack.com/services/…``."""

    chat: Chat
    url: str

    @classmethod
    def of(cls, address: str) -> Self | None:
        """Return the parts of an address of a chat, and ``None`` for any other address."""
        found = _ADDRESS.fullmatch(address)
        return cls(Chat(found[1].lower()), found[2]) if found else None

    def __str__(self) -> str:
        return f"{self.chat}:{self.url}"

    @property
    def shown(self) -> str:
        """The address without the secret part of its URL.

        Six digits of a hash tell the chats of one host apart. They do not help to guess the URL, which has
        more than 100 random bits.
        """
        try:
            parts = urlsplit(self.url)
            start = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        except ValueError:
            start = ""
        return f"{self.chat}:{start}/{_CUT}{hashlib.sha256(self.url.encode()).hexdigest()[:6]}"

    @property
    def is_shortened(self) -> bool:
        """Whether this is an address that :attr:`shown` returned."""
        return _CUT in self.url


def shown_address(address: str) -> str:
    """Return the address of a delivery or a recipient as it is shown to users and operators."""
    found = ChatAddress.of(address)
    return address if found is None or found.is_shortened else found.shown


def shown_addresses(addresses: object) -> object:
    """Return stored recipients as they are shown to users and operators.

    Those of a refused request can be any value.
    """
    if not isinstance(addresses, list):
        return addresses
    return [shown_address(item) if isinstance(item, str) else item for item in addresses]


def whole_address(address: str, known: Iterable[str]) -> str:
    """Return which of the ``known`` addresses is shown as ``address``, and ``address`` itself if none is."""
    return next((item for item in known if shown_address(item) == address), address)


def whole_addresses(addresses: Sequence[str], known: object) -> list[str]:
    """Return the addresses with those that are shortened as they are stored in ``known``."""
    stored = [item for item in known if isinstance(item, str)] if isinstance(known, list) else []
    return [whole_address(address, stored) for address in addresses]
