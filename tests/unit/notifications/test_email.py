"""The content and the format of mails, parsed strictly with the standard library."""

from collections.abc import Awaitable, Callable
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any, cast

import pytest
from aiosmtplib import SMTPDataError, SMTPException, SMTPRecipientRefused, SMTPServerDisconnected

from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused, DeliveryUncertain
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.mail.client import (
    UNREADABLE,
    Attachment,
    MailClient,
    build_mail,
    delivery_error,
)
from stream_app.notifications.mail.templates import render_mail
from stream_app.notifications.notification import Notification
from stream_app.notifications.request_words import one_line
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.text_style import TextStyle
from tests.rows import each_row
from tests.unit.notifications.notifications import failure, notification

LINK = "https://exports.example.com/exports/links/" + "A" * 66
UNSUBSCRIBE = "https://exports.example.com/exports/unsubscribe/" + "B" * 66
PAGE = "https://exports.example.com/#job-4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10"
STRICT = policy.SMTP.clone(raise_on_defect=True)
SENDER = "Exports <exports@example.com>"


class Markup(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_data(self, data: str) -> None:
        self.text += data


def sent(
    about: Notification, *, sender: str = SENDER, unsubscribe: str = UNSUBSCRIBE, **known: Any
) -> EmailMessage:
    """Return the mail as its receiver parses it."""
    attachment = known.get("attachment")
    content = render_mail(
        about, link=LINK, unsubscribe=unsubscribe, page=PAGE, attached=attachment is not None
    )
    raw = build_mail(about, content, sender=sender, unsubscribe=unsubscribe, attachment=attachment).as_bytes()
    assert raw.isascii()
    lines = raw.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert max(map(len, lines)) <= 998
    read = BytesParser(EmailMessage, policy=STRICT).parsebytes(raw)
    assert [part.defects for part in read.walk()] == [[] for _ in read.walk()]
    assert all(header.defects == () for header in read.values())
    return read


@cache
def harmless() -> tuple[EmailMessage, EmailMessage, EmailMessage]:
    """Return the mails about a failure, about a file and about that of a window."""
    return sent(failure()), sent(notification()), sent(notification(window=("a", "b")))


def bodies(mail: EmailMessage) -> tuple[str, Markup]:
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    return plain.get_content(), Markup(html.get_content())


def test_headers_follow_the_standards() -> None:
    mail = sent(notification())
    assert mail["From"] == SENDER
    assert mail["To"] == "ops@example.com"
    assert mail["Subject"] == "Export of ledger, 24 Nov 2026: 3,120 rows"
    assert mail["Date"].datetime == notification().due_at
    assert mail["Message-ID"] == "<7d4cbe2b-0d06-4ef3-a2a9-3f8a1e6bb5b1@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Unsubscribe"] == f"<{UNSUBSCRIBE}>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["MIME-Version"] == "1.0"
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    names = [name.lower() for name in mail]
    assert len(set(names)) == len(names)


def test_one_click_is_only_offered_over_https() -> None:
    mail = sent(notification(), unsubscribe="http://127.0.0.1:8000/exports/unsubscribe/x")
    assert mail["List-Unsubscribe"] == "<http://127.0.0.1:8000/exports/unsubscribe/x>"
    assert "List-Unsubscribe-Post" not in mail


def test_a_mail_of_a_finished_export_has_the_facts_and_the_link_in_both_bodies() -> None:
    mail = sent(notification(window=("2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00")))
    text, page = bodies(mail)
    for said in (
        "ledger",
        "3,120",
        "401 kB",
        "1–30 Nov 2026 UTC",
        "ledger-2026-11-24.csv",
        "1 Dec 2026, 06:00 UTC",
        notification().sha256,
        str(notification().job_id),
    ):
        assert said is not None
        assert said in text
        assert said in page.text
    assert f"\n{LINK}\n" in text.replace("\r\n", "\n")
    assert page.links == [LINK, UNSUBSCRIBE]
    assert UNSUBSCRIBE in text


def test_an_unknown_time_is_left_out() -> None:
    text, _ = bodies(sent(notification(as_of=None)))
    assert "Data as of" not in text


def test_facts_stand_in_two_columns() -> None:
    """In the plain text all values begin in the column after the longest name."""
    text, _ = bodies(sent(notification()))
    lines = [line for line in text.splitlines() if line.startswith(("Dataset:", "Rows:", "Size:"))]
    assert [len(line) - len(line.split(maxsplit=1)[1]) for line in lines] == [len("Requested by: ")] * 3


def test_a_mail_of_a_failed_export_has_the_reason_and_what_to_do_but_no_download() -> None:
    mail = sent(failure())
    text, page = bodies(mail)
    assert mail["Subject"] == "Export of ledger, 24 Nov 2026: failed"
    reason = "The request names a column that the dataset does not have."
    for said in (
        reason,
        "Only user-17 can change this export.",
        "forward this e-mail to user-17",
        str(notification().job_id),
    ):
        assert said in text
        assert said in page.text
    assert LINK not in text
    assert f"Show the export:\n{PAGE}\n" in text.replace("\r\n", "\n")
    assert page.links == [PAGE, UNSUBSCRIBE]


def test_a_mail_about_an_archive_with_a_password_leads_to_the_password() -> None:
    text, page = bodies(sent(notification(encryption="zip_password")))
    assert page.links == [LINK, PAGE, UNSUBSCRIBE]
    assert f"Show the password:\n{PAGE}\n" in text.replace("\r\n", "\n")


def test_the_file_in_a_mail_has_the_name_of_its_export() -> None:
    """P7: in the text, and as the name of the attachment."""
    about = notification(name="Übersicht Oktober")
    text, _ = bodies(sent(about))
    assert "Übersicht-Oktober-2026-11-24.csv" in text
    assert "ledger-2026" not in text


def test_a_failure_that_pauses_the_schedule_is_stated() -> None:
    mail = sent(failure(paused="paused after 5 failures in a row"))
    assert mail["Subject"] == "Export of ledger, 24 Nov 2026: failed, the schedule is paused"
    for body in (bodies(mail)[0], bodies(mail)[1].text):
        assert "starts no more exports until it is resumed." in body


@pytest.mark.parametrize("code", ["unknown_dataset", "invalid_request", None, "a code of later"])
def test_no_text_of_a_refused_request_is_in_the_mail(code: str | None) -> None:
    """S10: otherwise everyone who can publish a request could send any text by mail."""
    words = "Your-account https://evil.example/login expires"
    mail = sent(
        failure(error_code=code, error_message=f"{words!r} is no dataset", export_type=words, format=words,
            paused=words, name=words, user_id=words, filters={words: words}, columns=[words],
            options={"title": words}, scope=words)
    )  # fmt: skip
    for part in (mail["Subject"], bodies(mail)[0], bodies(mail)[1].text):
        assert "evil" not in part
        assert "account" not in part


def test_a_reason_without_text_of_the_request_is_in_the_mail() -> None:
    mail = sent(failure(error_code="too_many_rows", error_message="a PDF has at most 100,000 rows"))
    assert "A PDF has at most 100,000 rows." in bodies(mail)[0]


@pytest.mark.parametrize(("rows", "subject"), [(0, "no rows"), (1, "1 row"), (2, "2 rows")])
def test_the_subject_counts_the_rows(rows: int, subject: str) -> None:
    mail = sent(notification(row_count=rows))
    assert mail["Subject"] == f"Export of ledger, 24 Nov 2026: {subject}"
    assert ("No rows matched" in bodies(mail)[0]) is (rows == 0)


@pytest.mark.parametrize(
    "evil",
    [
        "x\r\nBcc: victim@example.com",
        "x\nContent-Type: text/html\n\n<script>alert(1)</script>",
        "x\r\n\r\nbody",
        "x\u2028Bcc: victim@example.com",
        "x\0y",
        "x\x85y\x0bz",
        "=?utf-8?q?x=0D=0ABcc=3A_victim=40example=2Ecom?=",
        "\u202egnp.exe",
        '"><script>alert(1)</script>',
        "</td><img src=x onerror=alert(1)>",
        "${link}$unsubscribe",
        "&lt;b&gt;",
    ],
)
def test_no_text_of_users_becomes_a_header_or_markup(evil: str) -> None:
    failed, plain, windowed = harmless()
    mail = sent(failure(export_type=evil, format=evil, error_message=evil, user_id=evil))
    assert mail.keys() == failed.keys()
    assert mail["To"] == "ops@example.com"
    assert set(bodies(mail)[1].tags) == set(bodies(failed)[1].tags)
    assert bodies(mail)[1].links == [PAGE, UNSUBSCRIBE]
    ready = sent(
        notification(export_type=evil, file_name=evil, window=(evil, evil)),
        attachment=Attachment(one_line(evil, 200), "text/csv; charset=utf-8", b"a,b\n"),
    )
    assert ready.keys() == plain.keys()
    assert bodies(ready)[1].tags == bodies(windowed)[1].tags
    (attachment,) = ready.iter_attachments()
    assert attachment.keys() == [
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "MIME-Version",
    ]
    assert one_line(evil, 200) in bodies(ready)[1].text


@pytest.mark.parametrize("name", ["Umsätze", "売上" * 20, "x" * 100, "a b " * 25, "🎉" * 25])
def test_any_dataset_has_a_readable_subject(name: str) -> None:
    assert sent(notification(export_type=name))["Subject"] == (
        f"Export of {one_line(name, 100)}, 24 Nov 2026: 3,120 rows"
    )


@pytest.mark.parametrize(
    "address",
    ["a@b.co", "x" * 64 + "@" + ".".join(["y" * 60] * 3) + ".example", "o'brien+exports@xn--bcher-kva.de"],
)
def test_any_address_is_unchanged(address: str) -> None:
    mail = sent(notification(address=address))
    assert [item.addr_spec for item in mail["To"].addresses] == [address]


@pytest.mark.parametrize(
    "sender", ["exports@localhost", "Exports, Ltd. <e@example.com>", "Berichte für alle <e@b.de>"]
)
def test_the_sender_can_have_a_name(sender: str) -> None:
    with_name = sender if "," not in sender else '"Exports, Ltd." <e@example.com>'
    mail = sent(notification(), sender=with_name)
    shown = "Exports <exports@localhost>" if sender == "exports@localhost" else with_name
    assert [str(item) for item in mail["From"].addresses] == [shown]


def test_an_attachment_is_the_file() -> None:
    content = bytes(range(256)) * 40
    mail = sent(notification(), attachment=Attachment("Bücher.xlsx", "application/vnd.ms-excel", content))
    (attachment,) = mail.iter_attachments()
    assert attachment.get_filename() == "Bücher.xlsx"
    assert attachment.get_content_type() == "application/vnd.ms-excel"
    assert attachment.get_content() == content
    assert "The file is attached." in bodies(mail)[0]


FILE = b"id,kind\n1,proof\n"
OF_FILE = {"file_size": len(FILE), "sha256": sha256(FILE).hexdigest()}


def mail_of(content: bytes, **changes: Any) -> Awaitable[EmailMessage]:
    """Build the mail of an export whose file is read as ``content``."""

    class Storage:
        def read(self, key: str) -> bytes:
            assert key == notification().file_path
            return content

        async def run_in_thread(self, work: Callable[[str], bytes], key: str) -> bytes:
            return work(key)

    settings = Settings(_env_file=None, mail_from="exports@example.com", mail_attach_max_bytes=len(FILE))
    client = MailClient(settings, DeliveryLinks(settings), cast(ObjectStore, Storage()))
    return client.mail(notification(**OF_FILE | changes))


@pytest.mark.parametrize(
    ("changes", "attached"),
    [
        ({}, True),
        ({"sha256": None}, True),
        ({"file_size": len(FILE) + 1}, False),
        ({"file_size": None}, False),
        ({"file_path": None}, False),
        ({"event": "failed"}, False),
    ],
)
async def test_a_finished_file_up_to_the_limit_is_attached(changes: dict[str, Any], attached: bool) -> None:
    mail = await mail_of(FILE, **changes)
    assert [item.get_payload(decode=True) for item in mail.iter_attachments()] == ([FILE] if attached else [])


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        (FILE[:-1], {}),
        (FILE[:-1], {"sha256": None}),
        (FILE.replace(b"1", b"2"), {}),
        (b"", {}),
    ],
)
async def test_a_file_that_is_not_the_one_of_the_record_is_not_attached(
    content: bytes, changes: dict[str, Any]
) -> None:
    with pytest.raises(DeliveryFailed, match=UNREADABLE):
        await mail_of(content, **changes)


@each_row("code", [421, 450, 452, 550, 551, 552, 553, 554, 556])
@each_row(
    ("message", "is_bad"),
    [
        ("5.1.1 no such user", True),
        ("5.1.1 <ops@example.com>: no such user\n5.1.1 see https://example.com/5.7.1", True),
        ("5.1.2 no such domain", True),
        ("5.1.3 no address", True),
        ("5.1.6 moved", True),
        ("5.1.10 the domain takes no mail", True),
        ("5.2.1 disabled", True),
        ("5.2.1", True),
        ("5.1.0 other", False),
        ("5.1.7 bad sender", False),
        ("5.1.8 bad domain of the sender", False),
        ("5.1.11 unknown", False),
        ("5.1.1.1 no code", False),
        ("5.2.10 unknown", False),
        ("5.2.2 mailbox full", False),
        ("5.7.1 blocked by policy", False),
        ("4.1.1 later", False),
        ("relay not permitted", False),
        ("Sender verify failed", False),
        ("no such user", False),
        ("see 5.1.1 no such user", False),
        ("", False),
    ],
)
def test_a_reply_about_the_address_stops_all_mails_to_it(code: int, message: str, is_bad: bool) -> None:
    refused = delivery_error(SMTPRecipientRefused(code, message, "ops@example.com"), data_sent=False)
    if code < 500:
        assert type(refused) is DeliveryFailed
    else:
        assert isinstance(refused, DeliveryRefused)
        assert refused.bad_address is is_bad


@pytest.mark.parametrize(
    ("error", "data_sent", "expected"),
    [
        (SMTPDataError(451, "try again"), True, DeliveryFailed),
        (SMTPDataError(554, "5.1.1 it looks like spam"), True, DeliveryRefused),
        (SMTPServerDisconnected("gone"), True, DeliveryUncertain),
        (SMTPServerDisconnected("gone"), False, DeliveryFailed),
        (ConnectionResetError(), True, DeliveryUncertain),
        (ConnectionRefusedError(), False, DeliveryFailed),
    ],
)
def test_an_error_in_doubt_is_not_a_no(
    error: SMTPException | OSError, data_sent: bool, expected: type[Exception]
) -> None:
    found = delivery_error(error, data_sent)
    assert type(found) is expected
    assert not (isinstance(found, DeliveryRefused) and found.bad_address)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (401_223, "401 kB"), (9_400_000, "9.4 MB")],
)
def test_sizes_are_readable(size: int, shown: str) -> None:
    assert TextStyle().size(size) == shown


def test_the_mail_has_the_warnings_of_the_file() -> None:
    """people A3: as text and as HTML; none without warnings."""
    about = notification(warnings={"replaced_characters": 48_241, "cut_cells": 1})
    content = render_mail(about, link=LINK, unsubscribe=LINK, page=PAGE)
    for body in (content.text, content.html):
        assert "48,241 characters could not be printed and are shown by their codes" in body
        assert "1 text was too long for a cell and was cut" in body
    plain = render_mail(notification(), link=LINK, unsubscribe=LINK, page=PAGE)
    assert "\n! " not in plain.text
    assert "could not be printed" not in plain.html


def test_the_mail_names_the_destination_that_has_the_files() -> None:
    plain, markup = bodies(sent(notification(sent_to="acme")))
    assert [line.split() for line in plain.splitlines() if "Also" in line] == [
        ["Also", "sent", "to:", "acme"]
    ]
    assert "Also sent to" in markup.text
    waiting, _ = bodies(sent(notification()))
    assert "Also sent to" not in waiting
