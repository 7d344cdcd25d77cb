"""Whom the service may write to: the syntax of addresses, and what the settings allow. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self
from urllib.parse import SplitResult, urlsplit

from email_validator import EmailNotValidError, validate_email

from stream_app.errors import Rejected
from stream_app.settings import Settings

MAX_RECIPIENTS = 50
MAX_URL = 2_000
"""Bytes."""

_NAT64 = ip_network("64:ff9b::/96")
_UNICAST = ip_network("2000::/3")
"""All of IPv6 that is given to anybody in the public Internet; the rest is reserved, local or a notation."""


@dataclass(frozen=True, slots=True)
class Addressing:
    """Which mail addresses and webhooks a request or a schedule may name.

    ``domains`` are those that mails may go to, lower case; none means any.
    """

    domains: frozenset[str] = frozenset()
    webhooks: bool = True
    private: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings allow."""
        domains = (settings.mail_allowed_domains or "").lower().split(",")
        return cls(
            domains=frozenset(filter(None, map(str.strip, domains))),
            webhooks=settings.webhook_secret is not None,
            private=settings.webhook_allow_private,
        )

    def recipients(self, addresses: Sequence[str], *, field: str = "recipients") -> list[str]:
        """The addresses as mails carry them (ASCII), each once whatever its case.

        Raises:
            Rejected: one is no address or goes to a domain that is not allowed, or they are too many.
        """
        if len(addresses) > MAX_RECIPIENTS:
            raise Rejected(
                f"{len(addresses)} addresses; at most {MAX_RECIPIENTS} are allowed",
                code="too_many_recipients",
                field=field,
            )
        checked = (self.recipient(item, field=f"{field}.{place}") for place, item in enumerate(addresses))
        return list({address.casefold(): address for address in checked}.values())

    def recipient(self, address: str, *, field: str) -> str:
        """One address as mails carry it.

        Raises:
            Rejected: it is none, or its domain is not allowed.
        """
        try:
            found = validate_email(
                address,
                check_deliverability=False,
                globally_deliverable=False,
                allow_smtputf8=False,
                strict=True,
            )
        except EmailNotValidError as error:
            raise Rejected(
                f"{address!r:.100} is not a mail address: {error}", code="bad_recipient", field=field
            ) from error
        if self.domains and not self.domains & {found.domain.lower(), found.ascii_domain.lower()}:
            raise Rejected(
                f"mails must not go to {found.domain}",
                code="recipient_not_allowed",
                field=field,
                allowed=sorted(self.domains),
            )
        return str(found.ascii_email)

    def webhook(self, url: str, *, field: str = "webhook") -> str:
        """The URL, if it is one that may be called. Where its name leads is found out when it is called.

        Raises:
            Rejected: it is no such URL, or webhooks are not offered.
        """
        if not self.webhooks:
            raise Rejected(
                "webhooks are not offered here; operators: set EXPORTER_WEBHOOK_SECRET",
                code="webhooks_not_offered",
                field=field,
            )
        parts = _split(url)
        schemes = ["https", "http"] if self.private else ["https"]
        if parts is None or parts.scheme not in schemes or len(url.encode()) > MAX_URL:
            raise Rejected(
                f"{url!r:.100} is not a webhook: an absolute URL of at most {MAX_URL} bytes, "
                "without user name, password or fragment; schemes",
                code="bad_webhook",
                field=field,
                allowed=schemes,
            )
        if not self.private and not _may_be_public(parts.hostname or ""):
            raise Rejected(f"{parts.hostname} is not a public host", code="webhook_not_public", field=field)
        return url


def _split(url: str) -> SplitResult | None:
    if not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable and "@" not in parts.netloc and not parts.fragment else None


def _may_be_public(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:
        return host.rstrip(".").lower() != "localhost"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, also if it is only a way to write another one.

    Raises:
        ValueError: it is no IP address.
    """
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner:
            return is_public(str(inner))
        if found not in _UNICAST:
            return False
    return found.is_global and not found.is_multicast
