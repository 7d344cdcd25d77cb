"""Users read the secret with which their receivers verify webhooks."""

import base64
from datetime import UTC, datetime

from pydantic import SecretStr
from standardwebhooks import Webhook

from producers.tokens import sign_token
from stream_app.notifications.webhook import receiver_key, signature_headers
from stream_app.settings import Settings
from tests.integration.api.conftest import changed, client_of, running

KEYS = [b"a" * 32, b"b" * 32]
TODAY, BEFORE = (SecretStr("whsec_" + base64.b64encode(key).decode()) for key in KEYS)


async def test_the_secret_is_the_owners_and_the_urls(api_settings: Settings) -> None:
    """S13: the secret of one user verifies no webhook of another user."""
    settings = changed(api_settings, webhook_secret=TODAY, webhook_previous_secret=BEFORE)
    secrets = {}
    async with running(settings) as app:
        for user in ("ada", "eve"):
            async with client_of(app, sign_token(settings, user)) as client:
                for url in ("https://hooks.example.com/a?job=1", "https://hooks.example.com/b"):
                    answer = await client.get("/exports/webhook-secret", params={"url": url})
                    assert answer.status_code == 200, answer.text
                    assert answer.headers["cache-control"] == "no-store"
                    secrets[user, url] = answer.json()
        async with client_of(app, sign_token(settings, "ada")) as client:
            refused = await client.get("/exports/webhook-secret", params={"url": "http://127.0.0.1/"})
    assert refused.json()["code"] == "bad_webhook"
    found = [value[name] for value in secrets.values() for name in ("secret", "previous_secret")]
    assert len(set(found)) == 8
    assert not set(found) & {TODAY.get_secret_value(), BEFORE.get_secret_value()}


async def test_the_secret_verifies_what_is_sent(api_settings: Settings) -> None:
    settings = changed(api_settings, webhook_secret=TODAY)
    url = "https://hooks.example.com/a"
    async with running(settings) as app, client_of(app, sign_token(settings, "ada")) as client:
        answer = (await client.get("/exports/webhook-secret", params={"url": url})).json()
    assert answer["previous_secret"] is None
    receiver = Webhook(answer["secret"])
    now = int(datetime.now(UTC).timestamp())
    headers = signature_headers([receiver_key(KEYS[0], "ada", url)], "msg_1", now, b"{}")
    assert receiver.verify("{}", headers) == {}
