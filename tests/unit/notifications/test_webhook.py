"""The signature of webhooks, with the example of the specification, and their content."""

import base64
import json
from datetime import timedelta

import pytest

from stream_app.notifications.channel import DeliveryRefused
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.public_post import MAX_RETRY_AFTER, Answer, PublicPost
from stream_app.notifications.webhook import WebhookClient, message_id, receiver_key, signature_headers
from stream_app.settings import Settings
from tests.rows import each_row
from tests.unit.notifications.notifications import failure, notification

KEY = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
SETTINGS = Settings(
    _env_file=None,
    webhook_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    public_url="https://exports.example.com",
)


def test_the_signature_is_that_of_the_specification() -> None:
    headers = signature_headers([KEY], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert SETTINGS.webhook_keys == [KEY]


def test_each_receiver_of_each_user_has_a_key_of_its_own() -> None:
    """S13: a receiver cannot sign for another one with its key."""
    urls = ["https://a.example.com/x", "https://a.example.com/y", "https://b.example.com/x"]
    keys = {receiver_key(KEY, user, url) for user in ("u1", "u2") for url in urls}
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)
    assert KEY not in keys
    assert receiver_key(KEY, "u1", urls[0] + "?job=1") == receiver_key(KEY, "u1", urls[0])


def test_the_body_is_json_with_the_link_or_the_error() -> None:
    hooks = WebhookClient(SETTINGS, DeliveryLinks(SETTINGS))
    done = json.loads(json.dumps(hooks.payload(notification())))
    assert done["type"] == "export.completed"
    assert done["timestamp"] == "2026-11-24T06:00:02+00:00"
    assert done["data"]["row_count"] == 3_120
    assert done["data"]["download_url"].startswith("https://exports.example.com/exports/links/")
    failed = json.loads(json.dumps(hooks.payload(failure())))
    assert failed["type"] == "export.failed"
    assert failed["data"]["error"]["code"] == "unknown_column"
    assert "download_url" not in failed["data"]


def test_the_name_of_the_file_is_that_of_the_event_also_if_the_export_has_a_name() -> None:
    hooks = WebhookClient(SETTINGS, DeliveryLinks(SETTINGS))
    named = notification(name="Ledger October")
    assert named.download_name == "Ledger-October-2026-11-24.csv"
    assert hooks.payload(named)["data"]["file_name"] == "ledger-2026-11-24.csv"


def test_the_id_is_the_same_for_each_attempt() -> None:
    assert (
        message_id(notification(attempt=1))
        == message_id(notification(attempt=2))
        == f"msg_{notification().delivery_id.hex}"
    )


@each_row(
    ("given", "wait"),
    [
        ("30", timedelta(seconds=30)),
        ("Mon, 05 Jan 2026 00:00:30 GMT", timedelta(seconds=30)),
        ("Mon, 05 Jan 2026 23:00:00 GMT", MAX_RETRY_AFTER),
        ("9" * 100, MAX_RETRY_AFTER),
        ("9" * 10_000, timedelta(0)),
        ("-30", timedelta(0)),
        ("Sun, 04 Jan 2026 00:00:00 GMT", timedelta(0)),
        ("Mon, 05 Jan 99999 00:00:00 GMT", timedelta(0)),
        (f"Mon, 05 Jan 2026 00:00:00 +{'9' * 30}", timedelta(0)),
        ("soon", timedelta(0)),
    ],
)
def test_no_retry_after_of_a_receiver_is_an_error(given: str, wait: timedelta) -> None:
    answer = Answer(429, {"retry-after": given, "date": "Mon, 05 Jan 2026 00:00:00 GMT"})
    assert answer.retry_after == wait


@pytest.mark.parametrize(
    "url",
    ["https://a..example.com/", f"https://{'a' * 64}.example.com/", "https://[::1/", "https://ex\x00a/"],
)
async def test_a_url_that_can_never_be_called_is_refused_for_good(url: str) -> None:
    """Another version can have accepted it. Nothing was sent, so the delivery is not ambiguous."""
    with pytest.raises(DeliveryRefused, match="the URL of the receiver is not valid"):
        await PublicPost(SETTINGS).post(url, b"{}", {}, user="ada")
