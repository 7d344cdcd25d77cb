"""Mails write times and numbers as the file does."""

from datetime import UTC, datetime
from typing import Any

import pytest

from stream_app.notifications.mail.templates import render_mail
from stream_app.notifications.notification import Notification
from stream_app.text_style import TextStyle
from tests.unit.notifications.notifications import failure, notification

GERMAN = {"options": {"locale": "de-DE", "timezone": "Europe/Berlin"}}


def styled(options: Any, timezone: str | None = None, **changes: Any) -> Notification:
    return notification(options=options, timezone=timezone, **changes)


def mail(about: Notification) -> tuple[str, str]:
    content = render_mail(
        about, link="https://x.example/link", unsubscribe="https://x.example/u", page="https://x.example/"
    )
    return content.subject, content.text


def test_locale_and_zone_of_the_file() -> None:
    """The words are those of the locale, as in the file, unless the request names another language."""
    window = ("2026-11-23T00:00:00+00:00", "2026-11-24T00:00:00+00:00")
    subject, text = mail(styled(GERMAN["options"], row_count=1_234_567, file_size=1_523_000, window=window))
    assert "1.234.567 Zeilen" in subject
    assert "1,5 MB" in text
    assert "gilt bis 1. Dez. 2026, 07:00 (Europe/Berlin)" in text
    options = {**GERMAN["options"], "language": "en"}
    subject, text = mail(styled(options, row_count=1_234_567, file_size=1_523_000, window=window))
    assert subject == "Export of ledger, 23 Nov 2026, 01:00 to 24 Nov 2026, 01:00: 1.234.567 rows"
    assert "This personal link works until 1 Dec 2026, 07:00 (Europe/Berlin)." in text
    assert "24 Nov 2026, 07:00 (Europe/Berlin)" in text
    assert "23 Nov 2026, 01:00 to 24 Nov 2026, 01:00 (Europe/Berlin)" in text


def test_the_language_counts_without_a_locale() -> None:
    subject, text = mail(styled({"language": "fr"}, row_count=1_234))
    assert subject == "Export of ledger, 24 Nov 2026: 1\u202f234 rows"
    assert "24 Nov 2026, 06:00 UTC" in text


def test_the_zone_of_the_dataset() -> None:
    _, text = mail(styled({}, "Asia/Kolkata"))
    assert "24 Nov 2026, 11:30 (Asia/Kolkata)" in text


def test_the_style_comes_from_the_record_of_the_job() -> None:
    facts = {name: getattr(notification(), name) for name in Notification.__slots__}
    row = {
        **facts,
        "id": facts["job_id"],
        "attempts": 1,
        "gone": False,
        "revoked_at": None,
        "unsubscribed": False,
        "suppressed": None,
        "schedule": None,
        "options": {"locale": "de-DE", "headers": "labels"},
        "manifest": {"timezone": "Europe/Berlin", "label": "Buchungen"},
        "encrypt": None,
        "sent_to": None,
        "created_at": facts["completed_at"],
        "run_at": None,
        "schedule_id": None,
        "claims": None,
    }
    subject, text = mail(Notification.from_row(row))
    assert subject == "Export von Buchungen, 24. Nov. 2026: 3.120 Zeilen"
    assert "24. Nov. 2026, 07:00 (Europe/Berlin)" in text
    plain = Notification.from_row(row | {"options": None, "manifest": None})
    assert mail(plain) == mail(notification())


def test_the_label_names_the_dataset_of_a_file_with_labels() -> None:
    subject, text = mail(notification(label="Bestellungen"))
    assert subject == "Export of Bestellungen, 24 Nov 2026: 3,120 rows"
    assert "Bestellungen" in text
    assert "ledger:" not in subject
    assert "Bestellungen" not in mail(failure(label="Bestellungen"))[1]


def test_without_options_mails_are_as_before() -> None:
    assert mail(styled(None)) == mail(styled({})) == mail(notification())
    assert mail(notification())[0] == "Export of ledger, 24 Nov 2026: 3,120 rows"
    assert "1 Dec 2026, 06:00 UTC" in mail(notification())[1]


@pytest.mark.parametrize(
    "options",
    [None, "text", [], {"timezone": "Mars/Olympus"}, {"locale": 5, "language": "xx"}, {"timezone": ["UTC"]}],
)
def test_stored_options_that_are_invalid_count_as_none(options: Any) -> None:
    assert TextStyle.of_stored(options) == TextStyle()


@pytest.mark.parametrize(
    ("zone", "locale", "shown"),
    [
        (None, None, "2026-07-01 10:00:00 UTC"),
        ("UTC", None, "2026-07-01 10:00:00 +00:00"),
        ("America/St_Johns", None, "2026-07-01 07:30:00 -02:30"),
        ("Europe/Berlin", "en-US", "7/1/2026 12:00:00 +02:00"),
    ],
)
def test_moments(zone: str | None, locale: str | None, shown: str) -> None:
    assert TextStyle.of(zone, locale).moment(datetime(2026, 7, 1, 10, tzinfo=UTC)) == shown
