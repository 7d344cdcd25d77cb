"""Notifications about an export of several files lead to their list."""

import asyncio
from typing import Any, cast

from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.mail.client import MailClient
from stream_app.notifications.mail.templates import render_mail
from stream_app.notifications.notification import Notification
from stream_app.notifications.webhook import WebhookClient
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.unit.notifications.notifications import notification


def several(**changes: Any) -> Notification:
    known = {"file_path": "jobs/x/1-y/manifest.json", "file_name": "manifest.json", "file_count": 12}
    return notification(**known | changes)


def test_the_mail_counts_the_files_and_names_no_single_one() -> None:
    content = render_mail(
        several(), link="https://x.example/link", unsubscribe="https://x.example/u", page="https://x.example/"
    )
    for body in (content.text, content.html):
        assert "It has 12 files, which the link lists." in body
        assert "https://x.example/link" in body
        assert "manifest.json" not in body
        assert "9f86d0" not in body


def test_a_single_file_is_named() -> None:
    for single in (notification(), several(file_count=1)):
        content = render_mail(
            single,
            link="https://x.example/link",
            unsubscribe="https://x.example/u",
            page="https://x.example/",
        )
        assert "which the link lists" not in content.text
        assert single.file_name is not None
        assert single.file_name in content.text


def test_the_list_is_not_attached() -> None:
    settings = Settings(_env_file=None, mail_attach_max_bytes=10**9)
    mails = MailClient(settings, DeliveryLinks(settings), cast(ObjectStore, None))
    mail = asyncio.run(mails.mail(several()))
    assert not list(mail.iter_attachments())


def test_the_webhook_has_the_address_of_the_list() -> None:
    settings = Settings(_env_file=None)
    links = DeliveryLinks(settings)
    webhooks = WebhookClient(settings, links)
    data = webhooks.payload(several())["data"]
    link = links.download(several().delivery_id)
    assert (data["download_url"], data["files_url"], data["file_count"]) == (None, f"{link}/files", 12)
    single = webhooks.payload(notification())["data"]
    assert single["download_url"] == link
    assert "files_url" not in single
