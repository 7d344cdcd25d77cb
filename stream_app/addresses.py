"""Whom the service may write to: the syntax of addresses, and what the settings allow. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import SplitResult, urlsplit

from email_validator import EmailNotValidError, validate_email

from stream_app.settings import Settings
from streaming_exporter.errors import Rejected

MAX_RECIPIENTS = 50
MAX_URL = 2_000
"""Bytes."""

Network = IPv4Network | IPv6Network

_NAT64 = ip_network("64:ff9b::/96")
_UNICAST = ip_network("2000::/3")
"""All of IPv6 that is given to anybody in the public Internet; the rest is reserved, local or a notation."""


SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # IETF protocol assignments, of which Python takes a part for global
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.175.48.0/24",  # AS112
            "168.63.129.16/32",  # Azure's host, as its virtual machines see it
            "2001::/23",  # IETF protocol assignments
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
"""Special-purpose networks (https://www.iana.org/assignments/iana-ipv4-special-registry) and hosts of clouds
that no receiver of webhooks has, although routers may forward packets to them."""


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Which mail addresses and webhooks a request or a schedule may name.

    ``domains`` are those that mails may go to, lower case; none means any.
    """

    domains: frozenset[str] = frozenset()
    mails: bool = True
    """Whether mails may go to anybody at all."""
    webhooks: bool = True
    private: bool = False
    hosts: tuple[str, ...] = ()
    """Hosts that webhooks may name, ``*.example.com`` for all below one; none means any."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings allow."""
        named = settings.mail_allowed_domains
        return cls(
            domains=frozenset(named.split(",")) if named and named != "*" else frozenset(),
            mails=named is not None or _is_local(settings.public_url),
            webhooks=settings.webhook_secret is not None,
            private=settings.webhook_allow_private,
            hosts=tuple((settings.webhook_allowed_hosts or "").split(","))
            if settings.webhook_allowed_hosts
            else (),
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
        if not self.mails:
            raise Rejected(
                "mails to recipients are not offered here; operators: name their domains in "
                "EXPORTER_MAIL_ALLOWED_DOMAINS, or * for any",
                code="recipient_not_allowed",
                field=field,
            )
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
        if self.hosts and not _is_among(parts.hostname or "", self.hosts):
            raise Rejected(
                f"webhooks must not go to {parts.hostname}",
                code="webhook_not_allowed",
                field=field,
                allowed=self.hosts,
            )
        if not self.private and not _may_be_public(parts.hostname or ""):
            raise Rejected(f"{parts.hostname} is not a public host", code="webhook_not_public", field=field)
        return url


def receiver_url(url: str) -> str:
    """What identifies a receiver of webhooks: its URL without the query, which differs from job to job."""
    return url.partition("?")[0]


def host_of(url: str) -> str:
    """The host and port that a webhook's URL names, in lower case."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2].lower()


def _is_among(host: str, patterns: Sequence[str]) -> bool:
    name = host.rstrip(".").lower()
    return any(
        name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern for pattern in patterns
    )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def networks(text: str | None) -> tuple[Network, ...]:
    """The networks of a setting that names them with commas between."""
    return tuple(ip_network(part, strict=False) for part in (text or "").split(",") if part)


def is_public(address: str, denied: Sequence[Network] = ()) -> bool:
    """Whether an IP address is one of the public Internet, also if it is only a way to write another one.

    Addresses in ``denied`` are not.

    Raises:
        ValueError: it is no IP address.
    """
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner:
            return is_public(str(inner), denied) and not _is_in(found, denied)
        if found not in _UNICAST:
            return False
    return found.is_global and not found.is_multicast and not _is_in(found, (*SPECIAL, *denied))


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
