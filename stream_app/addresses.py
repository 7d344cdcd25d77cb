"""Rules of mail addresses, chats and webhooks: their syntax, and what the settings allow. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import SplitResult, urlsplit

from email_validator import EmailNotValidError, validate_email

from stream_app.chat_addresses import Chat, ChatAddress
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected

MAX_RECIPIENTS = 50
MAX_URL = 2_000
"""Limit of the bytes of a URL."""
MAX_HOST = 253
"""Limit of the bytes of the name of a host (RFC 1035, section 2.3.4), as text."""

Network = IPv4Network | IPv6Network

_NAT64 = ip_network("64:ff9b::/96")
_UNICAST = ip_network("2000::/3")
"""The public part of IPv6. The rest is reserved, local, or another notation of IPv4."""


SPECIAL_NETWORKS: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # IETF protocol assignments; Python treats a part of them as global
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.175.48.0/24",  # AS112
            "168.63.129.16/32",  # Azure: the host of a virtual machine
            "2001::/23",  # IETF protocol assignments
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
"""Special-purpose networks (https://www.iana.org/assignments/iana-ipv4-special-registry) and hosts of clouds.

Routers can forward packets to them, but no receiver of webhooks uses them.
"""


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The mail addresses, chats and webhooks that requests and schedules can name.

    ``domains`` are the domains, in lower case, to which mails can be sent; none means all.
    """

    domains: frozenset[str] = frozenset()
    mails: bool = True
    """Whether mails to recipients are allowed at all."""
    webhooks: bool = True
    private: bool = False
    hosts: tuple[str, ...] = ()
    """Hosts of webhooks, ``*.example.com`` for all hosts below example.com; none means all."""
    chat_hosts: Mapping[Chat, tuple[str, ...]] = field(default_factory=dict)
    """Hosts of the incoming webhooks of each kind of chat, in the same form; none means none."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the rules from the settings."""
        named = settings.mail_allowed_domains
        return cls(
            domains=frozenset(named.split(",")) if named and named != "*" else frozenset(),
            mails=named is not None or _is_local(settings.public_url),
            webhooks=settings.webhook_secret is not None,
            private=settings.webhook_allow_private,
            hosts=_patterns(settings.webhook_allowed_hosts),
            chat_hosts={
                Chat.SLACK: _patterns(settings.slack_allowed_hosts),
                Chat.TEAMS: _patterns(settings.teams_allowed_hosts),
            },
        )

    def recipients(self, addresses: Sequence[str], *, field: str = "recipients") -> list[str]:
        """Return the addresses in ASCII form. Of mail addresses that differ only in case, the first is kept.

        Raises:
            Rejected: an address is invalid or its domain is not allowed, or there are too many.
        """
        if len(addresses) > MAX_RECIPIENTS:
            raise Rejected(
                f"there are {len(addresses)} addresses; allowed: at most {MAX_RECIPIENTS}",
                code="too_many_recipients",
                field=field,
            )
        checked = (self.recipient(item, field=f"{field}.{place}") for place, item in enumerate(addresses))
        return list({_identity(address): address for address in checked}.values())

    def recipient(self, address: str, *, field: str) -> str:
        """Return one address of a mail or a chat in ASCII form.

        Raises:
            Rejected: the address is invalid, or its domain or host is not allowed.
        """
        chat = ChatAddress.of(address)
        if chat is not None:
            return self._chat(chat, field)
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
                f"{address!r:.100} is not a valid mail address, such as ada@example.com",
                code="bad_recipient",
                field=field,
            ) from error
        if not self.mails:
            raise Rejected(
                "this service does not send mails to recipients; leave recipients out. Operators: set their "
                "domains in EXPORTER_MAIL_ALLOWED_DOMAINS, or * for all",
                code="recipient_not_allowed",
                field=field,
            )
        if self.domains and not self.domains & {found.domain.lower(), found.ascii_domain.lower()}:
            raise Rejected(
                f"mails to {found.domain} are not allowed",
                code="recipient_not_allowed",
                field=field,
                allowed=sorted(self.domains),
            )
        return str(found.ascii_email)

    def _chat(self, address: ChatAddress, field: str) -> str:
        """Return the address of a chat if the rules allow it. No error has the secret part of its URL."""
        hosts = self.chat_hosts.get(address.chat, ())
        if not hosts:
            raise Rejected(
                f"this service sends no messages to {address.chat}; leave the recipient out. "
                f"Operators: set EXPORTER_{address.chat.upper()}_ALLOWED_HOSTS",
                code="chat_not_allowed",
                field=field,
            )
        if address.is_shortened:
            raise Rejected(
                f"the URL after {address.chat}: is shortened; give the whole URL of the incoming webhook",
                code="bad_chat",
                field=field,
            )
        parts = _split(address.url)
        schemes = ["https", "http"] if self.private else ["https"]
        ascii_url = address.url.isascii() and len(address.url) <= MAX_URL
        if parts is None or parts.scheme not in schemes or not ascii_url:
            raise Rejected(
                f"expected {address.chat}: and the URL of an incoming webhook, an absolute URL of at most "
                f"{MAX_URL} ASCII characters, without user name, password or fragment, with one of these "
                "schemes",
                code="bad_chat",
                field=field,
                allowed=schemes,
            )
        host = parts.hostname or ""
        if not _is_among(host, hosts):
            raise Rejected(
                f"{address.chat} messages to {host:.100} are not allowed",
                code="chat_not_allowed",
                field=field,
                allowed=hosts,
            )
        if not self.private and not _can_be_public(host):
            raise Rejected(f"{host:.100} is not a public host", code="chat_not_allowed", field=field)
        return str(address)

    def webhook(self, url: str, *, field: str = "webhook") -> str:
        """Return the URL if the rules allow it. The IP addresses of its host are checked at each call.

        Raises:
            Rejected: the URL is invalid or not allowed, or webhooks are not set up.
        """
        if not self.webhooks:
            raise Rejected(
                "this service does not send webhooks; leave webhook out. "
                "Operators: set EXPORTER_WEBHOOK_SECRET",
                code="webhooks_not_offered",
                field=field,
            )
        parts = _split(url)
        schemes = ["https", "http"] if self.private else ["https"]
        if parts is None or parts.scheme not in schemes or len(url.encode()) > MAX_URL:
            raise Rejected(
                f"{url!r:.100} is not the URL of a webhook; expected an absolute URL of at most "
                f"{MAX_URL} bytes, "
                "without user name, password or fragment, with one of these schemes",
                code="bad_webhook",
                field=field,
                allowed=schemes,
            )
        if self.hosts and not _is_among(parts.hostname or "", self.hosts):
            raise Rejected(
                f"webhooks to {parts.hostname} are not allowed",
                code="webhook_not_allowed",
                field=field,
                allowed=self.hosts,
            )
        if not self.private and not _can_be_public(parts.hostname or ""):
            raise Rejected(f"{parts.hostname} is not a public host", code="webhook_not_public", field=field)
        return url


def spellings(address: str) -> list[str]:
    """Return all forms in which records can have an address that a person writes, except for upper case.

    Requests are stored with mail addresses in ASCII form and with the kind of a chat before its URL. The
    record of a refused request has its addresses as they were written.
    """
    address = address.strip()
    found = ChatAddress.of(address)
    if found is not None:
        forms = [address, str(found)]
    elif "://" in address:
        forms = [address, *(str(ChatAddress(chat, address)) for chat in Chat)]
    else:
        forms = [address, *_forms_of_mail(address)]
    return list(dict.fromkeys(forms))


def _forms_of_mail(address: str) -> list[str]:
    try:
        found = validate_email(
            address, check_deliverability=False, globally_deliverable=False, allow_smtputf8=False
        )
    except EmailNotValidError:
        return []
    return [str(found.ascii_email), found.normalized]


def receiver_url(url: str) -> str:
    """Return the URL that identifies a receiver: without the query, which can differ between jobs."""
    return url.partition("?")[0]


def _patterns(setting: str | None) -> tuple[str, ...]:
    return tuple(setting.split(",")) if setting and setting != "none" else ()


def _identity(address: str) -> str:
    """Return what two addresses of one recipient have in common. The case of a URL matters."""
    return address if ChatAddress.of(address) else address.casefold()


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
        usable = _is_name(parts.hostname or "") and parts.port != 0
    except ValueError:
        return None
    return parts if usable and "@" not in parts.netloc and not parts.fragment else None


def _is_name(host: str) -> bool:
    """Return whether ``host`` is an IPv6 address, or a name that can be looked up.

    The codec is the one of :func:`socket.getaddrinfo`: it has no empty label and none of over 63 characters.
    """
    if ":" in host:
        return True
    try:
        return 0 < len(host.encode("idna").removesuffix(b".")) <= MAX_HOST
    except UnicodeError:
        return False


def _can_be_public(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:
        return host.rstrip(".").lower() != "localhost"


def networks(text: str | None) -> tuple[Network, ...]:
    """Parse the networks of a setting, which are separated by commas."""
    return tuple(ip_network(part, strict=False) for part in (text or "").split(",") if part)


def is_public(address: str, denied: Sequence[Network] = ()) -> bool:
    """Return whether an IP address belongs to the public Internet and is not in ``denied``.

    An IPv6 address that contains an IPv4 address is public only if that one is public too.

    Raises:
        ValueError: the text is not an IP address.
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
    return found.is_global and not found.is_multicast and not _is_in(found, (*SPECIAL_NETWORKS, *denied))


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
