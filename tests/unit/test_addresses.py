"""The addresses to which the service can send."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from stream_app.addresses import AddressRules, is_public, networks, spellings
from stream_app.chat_addresses import shown_address, whole_addresses
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected
from tests.rows import each_row

SECRET = "whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"


def addressing(**changes: Any) -> AddressRules:
    return AddressRules.of(Settings(_env_file=None, **{"webhook_secret": SECRET, **changes}))


def test_addresses_are_returned_in_ascii_form_each_once() -> None:
    found = addressing().recipients(["Ops@Example.com", "ops@example.com", "a@bücher.de", "root@intranet"])
    assert found == ["ops@example.com", "a@xn--bcher-kva.de", "root@intranet"]


@each_row(
    "address",
    [
        "",
        "nobody",
        "a@b@c.de",
        "a b@c.de",
        "Name <a@c.de>",
        "a@c.de\r\nBcc: x@y.de",
        "a@c.de,b@c.de",
        "ü@c.de",
        "a@[127.0.0.1]",
        "x" * 65 + "@c.de",
    ],
)
def test_an_invalid_address_is_named_with_its_place(address: str) -> None:
    with pytest.raises(Rejected, match=r"^recipients\.1: .* is not a valid mail address") as error:
        addressing().recipients(["ops@example.com", address])
    assert error.value.code == "bad_recipient"


def test_domains_can_be_limited_and_the_error_names_those_allowed() -> None:
    limited = addressing(mail_allowed_domains=" Example.com, bücher.de ")
    assert limited.recipients(["a@EXAMPLE.com", "b@bücher.de"]) == ["a@example.com", "b@xn--bcher-kva.de"]
    for address in ("a@sub.example.com", "a@example.com.evil.org"):
        with pytest.raises(
            Rejected, match=r"mails to .* are not allowed; allowed: bücher.de, example.com"
        ) as error:
            limited.recipients([address])
        assert error.value.code == "recipient_not_allowed"


def test_fifty_addresses_are_allowed() -> None:
    many = [f"u{number}@example.com" for number in range(51)]
    assert len(addressing().recipients(many[:50])) == 50
    with pytest.raises(Rejected, match="51 addresses; allowed: at most 50"):
        addressing().recipients(many)


NO_NAMES = [
    "a..example.com",
    ".example.com",
    "example.com..",
    "..",
    ".",
    f"{'a' * 64}.example.com",
    f"{'ü' * 60}.example.com",
    f"example.{'b' * 64}",
    ".".join(["a" * 60] * 5),
]
"""Hosts that cannot be looked up."""


@each_row("host", NO_NAMES)
def test_a_chat_has_a_host_that_can_be_looked_up(host: str) -> None:
    rules = addressing(slack_allowed_hosts="*.example.com,example.com,*.com", webhook_allow_private=True)
    with pytest.raises(Rejected) as error:
        rules.recipients([f"slack:https://{host}/services/T0/B0/x"])
    assert error.value.code == "bad_chat"


@pytest.mark.parametrize(
    "host",
    [f"{'a' * 63}.example.com", "example.com.", "müller.example", ".".join(["a" * 62] * 4), "a_b.example"],
)
def test_hosts_of_all_other_names_are_allowed(host: str) -> None:
    assert addressing().webhook(f"https://{host}/x") == f"https://{host}/x"


@pytest.mark.parametrize(
    "address", ["\u017flack:https://hooks.slack.com/x", "slac\u212a:https://hooks.slack.com/x"]
)
def test_an_address_like_that_of_a_chat_is_refused_as_a_mail_address(address: str) -> None:
    """Some letters beyond ASCII are equal to ASCII letters when case is ignored."""
    with pytest.raises(Rejected, match="is not a valid mail address"):
        addressing(slack_allowed_hosts="hooks.slack.com").recipients([address])


def test_a_webhook_is_a_public_https_url() -> None:
    url = "https://hooks.example.com:8443/exports?team=7"
    assert addressing().webhook(url) == url


@each_row(
    "url",
    [
        "",
        "hooks.example.com",
        "//hooks.example.com/x",
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/\r\nHost: x",
        "https://hooks.example.com\\@evil.org/",
        "https://hooks.example.com:99999/",
        "https://[::1/",
        "https:///path",
        "https://hooks.example.com/" + "x" * 2_000,
        *(f"https://{host}/x" for host in NO_NAMES),
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(
        Rejected, match=r"^webhook: .* is not the URL of a webhook; .* allowed: https"
    ) as error:
        addressing().webhook(url)
    assert error.value.code == "bad_webhook"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]", "[fd00::1]", "localhost", "[::ffff:10.0.0.1]"],
)
def test_a_webhook_must_not_be_private_unless_that_is_allowed(host: str) -> None:
    with pytest.raises(Rejected, match="is not a public host"):
        addressing().webhook(f"https://{host}/")
    open_to_all = addressing(webhook_allow_private=True)
    assert open_to_all.webhook(f"http://{host}/") == f"http://{host}/"


def test_without_a_secret_there_are_no_webhooks() -> None:
    with pytest.raises(Rejected, match="set EXPORTER_WEBHOOK_SECRET"):
        addressing(webhook_secret=None).webhook("https://hooks.example.com/")


@each_row(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("172.16.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("::ffff:93.184.216.34", True),
        ("::ffff:169.254.169.254", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::7f00:1", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("fec0::1", False),
        ("5f00::1", False),
    ],
)
def test_private_addresses_are_known_in_every_notation(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("secret", ["secret", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", "x" + SECRET])
def test_an_invalid_secret_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValidationError, match="allowed: whsec_ and 24 to 64 bytes in base64"):
        Settings(_env_file=None, webhook_secret=secret)


def test_mails_need_allowed_domains() -> None:
    """S10: a service that others reach sends no mails before its operators set the domains."""
    public = {"public_url": "https://exports.example.com"}
    with pytest.raises(Rejected, match="EXPORTER_MAIL_ALLOWED_DOMAINS") as error:
        addressing(**public).recipients(["a@example.com"])
    assert error.value.code == "recipient_not_allowed"
    assert addressing(**public).recipients([]) == []
    assert addressing(**public, mail_allowed_domains="*").recipients(["a@example.com"]) == ["a@example.com"]
    assert addressing().recipients(["a@example.com"]) == ["a@example.com"], "on loopback they go to anybody"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("HOOKS.example.com.", True),
        ("a.b.partner.org", True),
        ("partner.org", False),
        ("evilpartner.org", False),
        ("example.com", False),
        ("hooks.example.com.evil.org", False),
    ],
)
def test_webhooks_go_only_to_hosts_that_are_allowed(host: str, allowed: bool) -> None:
    """S13: the rule is the same as for mail domains."""
    limited = addressing(webhook_allowed_hosts="Hooks.example.com, *.partner.org")
    url = f"https://{host}/x"
    if allowed:
        assert limited.webhook(url) == url
    else:
        with pytest.raises(
            Rejected, match=r"webhooks to .* are not allowed.* allowed: hooks.example.com, \*.partner.org"
        ):
            limited.webhook(url)


@pytest.mark.parametrize("address", ["192.0.0.192", "192.0.0.8", "168.63.129.16", "2001::1", "3fff::1"])
def test_special_networks_are_not_public(address: str) -> None:
    """S18: also networks that Python considers global."""
    assert not is_public(address)


def test_further_networks_can_be_denied() -> None:
    denied = networks("8.8.8.0/24,2a00:1450::/32")
    assert is_public("8.8.8.8")
    assert not is_public("8.8.8.8", denied)
    assert not is_public("::ffff:8.8.8.8", denied)
    assert not is_public("2a00:1450::1", denied)
    assert is_public("2a00:1451::1", denied)


SLACK = "slack:https://hooks.slack.com/services/T000/B000/sEcReTsEcReT"
WORKFLOW = (
    "teams:https://prod-00.westeurope.logic.azure.com:443/workflows/ab/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=sEcReTsEcReT"
)


def test_chats_are_recipients_each_once_and_with_their_case() -> None:
    other = SLACK.replace("sEcReTsEcReT", "SeCrEt")
    found = addressing(mail_allowed_domains="*").recipients(
        [SLACK, "ops@example.com", SLACK.replace("slack:", "SLACK:"), other, WORKFLOW]
    )
    assert found == [SLACK, "ops@example.com", other, WORKFLOW]


def test_chats_are_allowed_where_mails_are_not() -> None:
    rules = addressing(public_url="https://exports.example.com")
    assert rules.recipients([SLACK]) == [SLACK]
    with pytest.raises(Rejected, match="does not send mails"):
        rules.recipients(["ops@example.com"])


@each_row(
    ("address", "changes", "reason"),
    [
        ("slack:", {}, "expected slack: and the URL"),
        ("slack:#general", {}, "expected slack: and the URL"),
        ("slack:http://hooks.slack.com/services/sEcReT", {}, "allowed: https"),
        ("slack:https://user:sEcReT@hooks.slack.com/services", {}, "without user name"),
        ("slack:https://hooks.slack.com/sEcReT#x", {}, "without user name"),
        ("slack:https://hooks.slack.com/sEcReT ö", {}, "ASCII"),
        ("slack:https://hooks.slack.com/" + "sEcReT" * 400, {}, "at most 2000"),
        (
            "slack:https://hooks.slack.com.evil.example/sEcReT",
            {},
            "are not allowed; allowed: hooks.slack.com",
        ),
        ("slack:https://chat.example.com/hooks/sEcReT", {}, "to chat.example.com are not allowed"),
        ("slack:https://169.254.169.254/sEcReT", {}, "are not allowed"),
        (
            "slack:https://169.254.169.254/sEcReT",
            {"slack_allowed_hosts": "169.254.169.254"},
            "is not a public host",
        ),
        ("teams:https://logic.azure.com/sEcReT", {}, "are not allowed"),
        ("teams:https://hooks.slack.com/services/sEcReT", {}, "are not allowed"),
        (SLACK, {"slack_allowed_hosts": "none"}, "sends no messages to slack"),
        (WORKFLOW, {"teams_allowed_hosts": "none"}, "EXPORTER_TEAMS_ALLOWED_HOSTS"),
        (shown_address(SLACK), {}, "is shortened"),
        (shown_address(WORKFLOW), {}, "is shortened"),
    ],
)
def test_a_chat_that_is_not_allowed_is_refused_without_its_secret(
    address: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Rejected, match=re.escape(reason)) as error:
        addressing(**changes).recipients([address])
    assert "sEcReT" not in str(error.value)
    assert error.value.code in ("bad_chat", "chat_not_allowed")


def test_other_hosts_of_chats_are_allowed_by_settings() -> None:
    rules = addressing(slack_allowed_hosts="chat.example.com,*.mattermost.example")
    for host in ("chat.example.com", "a.b.mattermost.example:8443"):
        assert rules.recipients([f"slack:https://{host}/hooks/x"]) == [f"slack:https://{host}/hooks/x"]
    with pytest.raises(Rejected, match="are not allowed"):
        rules.recipients([SLACK])


@pytest.mark.parametrize(
    "address", [SLACK, WORKFLOW, "teams:https://[bad", "slack:x://u:sEcReT@h/sEcReT?sEcReT"]
)
def test_the_shown_address_of_a_chat_has_no_secret(address: str) -> None:
    shown = shown_address(address)
    assert "sEcReT" not in shown
    assert "…" in shown
    assert shown_address(shown) == shown
    assert whole_addresses([shown, "ops@example.com"], ["x@y.z", address]) == [address, "ops@example.com"]
    assert whole_addresses([shown], [None, 1]) == [shown]


def test_the_shown_addresses_of_one_host_differ() -> None:
    assert shown_address(SLACK).startswith("slack:https://hooks.slack.com/…")
    assert shown_address(SLACK) != shown_address(SLACK + "x")


@each_row(
    ("written", "stored"),
    [
        ("Info@Bücher.example", "info@xn--bcher-kva.example"),
        ("info@XN--bcher-kva.example", "info@bücher.example"),
        (" ada@example.com\n", "ada@example.com"),
        ("https://hooks.slack.com/x", "slack:https://hooks.slack.com/x"),
        ("https://x.webhook.office.com/y", "teams:https://x.webhook.office.com/y"),
        ("SLACK:https://hooks.slack.com/x", "slack:https://hooks.slack.com/x"),
        ("https://hooks.example.com/x", "https://hooks.example.com/x"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_known_by_all_its_spellings(written: str, stored: str) -> None:
    assert stored in {form.lower() if "@" in form else form for form in spellings(written)}
