"""Mails say who requested what, in words, in the language of the request (people 17)."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from api.page.routes import PAGE_FILES
from stream_app.notifications.mail.html import DARK, LIGHT, TEXT_ON, Palette
from stream_app.notifications.mail.templates import MailContent, render_mail
from stream_app.notifications.mail_style import MailStyle
from stream_app.notifications.notification import Notification, RequestSummary, ScheduleSummary
from stream_app.notifications.request_words import PERIODS, filter_texts, schedule_text
from tests.rows import each_row
from tests.unit.notifications.notifications import failure, notification

WEEK = {
    "window": ("2026-11-16T00:00:00+01:00", "2026-11-23T00:00:00+01:00"),
    "window_zone": "Europe/Berlin",
    "schedule_summary": ScheduleSummary("Ledger of the week", "weekly", 0, "06:00", "Europe/Berlin"),
    "name": "Ledger of the week",
}
GERMAN = {"language": "de-AT", "timezone": "Europe/Vienna"}


def mail(about: Notification) -> MailContent:
    return render_mail(
        about, link="https://x.example/link", unsubscribe="https://x.example/u", page="https://x.example/"
    )


def style(language: str = "en", timezone: str | None = None, **options: Any) -> MailStyle:
    return MailStyle.of(language, options, timezone)


def test_a_mail_of_a_schedule_says_which_one_who_and_for_which_days() -> None:
    found = mail(notification(**WEEK, scope="all", filters={"kind": "proof"}, columns=["id", "kind"]))
    assert found.subject == "Ledger of the week, 16–22 Nov 2026: 3,120 rows"
    for body in (found.text, found.html):
        for said in (
            "Ledger of the week, every Monday at 06:00 (Europe/Berlin)",
            "user-17",
            "16–22 Nov 2026 (Europe/Berlin)",
            "rows of all users",
            "kind = proof",
            "id, kind",
            "user-17 set up a schedule that sends this export to you.",
            "Stop e-mails from this schedule",
        ):
            assert said in body, said


@pytest.mark.parametrize(
    "tests",
    [
        {"gte": "2026-11-15T23:00:00Z", "lt": "2026-11-22T23:00:00+00:00"},
        {"gte": "2026-11-16T00:00:00+01:00", "lt": "2026-11-23T00:00:00+01:00"},
        {"gte": "2026-11-16", "lt": "2026-11-23"},
    ],
)
def test_the_filter_of_the_period_is_not_repeated(tests: Any) -> None:
    """As a second line, perhaps with the days of another zone."""
    found = mail(notification(**WEEK, filters={"kind": "proof", "created_at": tests}))
    assert "kind = proof" in found.text
    assert "created_at" not in found.text + found.html
    narrower = {"created_at": {**tests, "lt": "2026-11-20T00:00:00Z"}}
    assert "created_at" in mail(notification(**WEEK, filters=narrower)).text


def test_the_subject_differs_each_week() -> None:
    window = ("2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00")
    assert mail(notification(**WEEK)).subject != mail(notification(**WEEK | {"window": window})).subject


def test_the_subject_of_a_run_has_the_day_of_its_schedule_as_its_file_has() -> None:
    run_at = datetime(2026, 3, 29, 23, 30, tzinfo=UTC)
    requested = RequestSummary(run_at, run_at, uuid4(), {}, {})
    summary = ScheduleSummary("Nightly", "daily", None, "00:30", "Europe/London")
    run = notification(schedule_summary=summary, requested=requested, as_of=run_at + timedelta(days=2))
    assert "30 Mar 2026" in mail(run).subject
    assert "30 Mar 2026" in mail(replace(run, as_of=run_at)).subject
    assert "31 Mar 2026" in mail(replace(run, schedule_summary=None)).subject


def test_the_title_of_the_file_counts_as_a_name() -> None:
    titled = notification(options={"title": "Ledger October"})
    assert mail(titled).subject == "Ledger October, 24 Nov 2026: 3,120 rows"


def test_the_mail_is_in_the_language_of_the_request() -> None:
    found = mail(notification(**WEEK | {"name": "Buchungen"}, options=GERMAN))
    assert found.subject == "Buchungen, 16.–22. Nov. 2026: 3.120 Zeilen"
    assert '<html lang="de">' in found.html
    for said in ("jeden Montag um 06:00 (Europe/Berlin)", "Angefordert von", "Herunterladen"):
        assert said in found.text
    assert not re.findall(r"\b(rows|ready|requested|whose|size|download)\b", found.text, re.IGNORECASE)


@pytest.mark.parametrize("options", [{"language": "fr"}, {"language": 5}, {}, None, "de"])
def test_a_language_without_messages_is_english(options: Any) -> None:
    assert "is ready: 3" in mail(notification(options=options)).text


def test_hash_and_id_are_small_and_last() -> None:
    found = mail(notification())
    assert found.text.index("SHA-256") > found.text.index("Data as of")
    assert found.text.index("Job id") > found.text.index("SHA-256")
    assert "font-size:12px" in found.html.partition("SHA-256")[0].rpartition("<table")[2]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("too_many_rows", "forward this e-mail to user-17"),
        ("worker_lost", "Nothing is wrong with the request."),
        ("missing_table", "The operators of the service have to correct something."),
        (None, "forward this e-mail to user-17"),
    ],
)
def test_a_recipient_who_cannot_correct_a_failure_knows_what_to_do(code: str | None, advice: str) -> None:
    found = mail(failure(error_code=code, error_message="it went wrong"))
    assert advice in found.text
    assert advice in found.html
    assert "send the job id below to support" in found.text


@each_row(
    "name",
    [
        "Pay at https://evil.example",
        "www.evil.example",
        "HTTP://evil",
        "Pay at evil.example/x",
        "(evil-bank.co.uk)",
        "Evil.Example",
        "böse.рф",
        "a.evil.xn--p1ai",
        "anna@evil.example or evil.example",
    ],
)
def test_no_link_of_a_user_is_in_a_mail(name: str) -> None:
    """Recipients trust links in the mails of the service. Mail programs make links of domains, too."""
    request: dict[str, Any] = {
        "name": name, "filters": {"kind": name}, "columns": ["id", name],
        "user_id": name, "options": {"title": name},
    }  # fmt: skip
    for about in (notification(**request), failure(**request, error_code="missing_column")):
        found = mail(about)
        for part in (found.subject, found.text, found.html):
            assert name not in part


@pytest.mark.parametrize(
    "given",
    ["anna.meier@mail.example.com", "Ledger 10.2026", "12.5 %", "z. B. Umsatz", "v1.2", "10.0.0.1", "A... b"],
)
def test_an_address_of_a_user_and_numbers_are_no_links(given: str) -> None:
    found = mail(notification(name=given, user_id=given, filters={"kind": given}))
    assert f"Requested by: {given}" in re.sub(" +", " ", found.text)
    assert given in found.subject
    assert f"kind = {given}" in found.text


@each_row(
    ("filters", "shown"),
    [
        ({"kind": "proof"}, ["kind = proof"]),
        ({"kind": {"in": ["a", "b"]}}, ["kind one of a, b"]),
        ({"kind": {"in": list("abcdefg")}}, ["kind one of a, b, c, d, e …"]),
        ({"paid": True}, ["paid = true"]),
        ({"note": None}, ["note = empty"]),
        ({"note": {"is_null": False}}, ["note is not empty"]),
        ({"total": {"gte": 12.5, "lt": 20}}, ["total ≥ 12.5", "total < 20"]),
        ({"at": {"gte": "2026-10-01", "lte": "2026-10-31"}}, ["at: 1–31 Oct 2026"]),
        ({"at": {"lte": "2026-10-31"}}, ["at until 31 Oct 2026 (inclusive)"]),
        ({"at": {"gt": "2026-10-31[Europe/Berlin]"}}, ["at after 31 Oct 2026"]),
        ({"at": {"gte": "start_of_month-1mo", "lt": "start_of_month"}}, ["at: last month"]),
        (
            {"at": {"gte": "2026-11-15T23:00:00Z", "lt": "2026-11-22T23:00:00Z"}},
            ["at: 16–22 Nov 2026 (Europe/Berlin)"],
        ),
        ({"at": {"lt": "2026-11-15T23:30:00Z"}}, ["at < 16 Nov 2026, 00:30 (Europe/Berlin)"]),
        ({"at": "now-7d"}, ["at = now-7d"]),
        ({"a\nb": "c\r\nd"}, ["a b = c d"]),
        ({str(n): n for n in range(12)}, [f"{n} = {n}" for n in range(10)] + ["and 2 more"]),
        ("text", []),
        (None, []),
        ([1], []),
    ],
)
def test_filters_in_words(filters: Any, shown: list[str]) -> None:
    assert filter_texts(filters, style(timezone="Europe/Berlin")) == shown


def test_the_periods_are_those_of_the_page() -> None:
    script = (PAGE_FILES / "filter_texts.js").read_text()
    table = re.findall(r'\["(\w+)", "([\w+-]+)", "([\w+-]+)"\]', script)
    assert {(gte, lt): name for name, gte, lt in table} == PERIODS


@pytest.mark.parametrize(
    ("summary", "english", "german"),
    [
        (("daily", None, None), "every day at 00:00 (UTC)", "jeden Tag um 00:00 (UTC)"),
        (("weekly", 6, "06:30:00"), "every Sunday at 06:30 (UTC)", "jeden Sonntag um 06:30 (UTC)"),
        (
            ("monthly", None, "06:00"),
            "on day 1 of every month at 06:00 (UTC)",
            "jeden Monat am 1. um 06:00 (UTC)",
        ),
        (
            ("monthly", 28, "06:00"),
            "on day 28 of every month at 06:00 (UTC)",
            "jeden Monat am 28. um 06:00 (UTC)",
        ),
        (
            ("monthly", 29, "06:00"),
            "on day 29 of every month, in shorter months on the last day, at 06:00 (UTC)",
            "jeden Monat am 29., in kürzeren Monaten am letzten Tag, um 06:00 (UTC)",
        ),
        (
            ("monthly", 31, "06:00"),
            "on the last day of every month at 06:00 (UTC)",
            "am letzten Tag jedes Monats um 06:00 (UTC)",
        ),
        (
            ("0 6 * * 1", None, None),
            "custom schedule (cron 0 6 * * 1, UTC)",
            "eigener Zeitplan (Cron 0 6 * * 1, UTC)",
        ),
    ],
)
def test_schedules_in_words(summary: tuple[Any, Any, Any], english: str, german: str) -> None:
    schedule, day, time = summary
    found = ScheduleSummary(None, schedule, day, time, "UTC")
    assert schedule_text(found, "en", "en_GB") == english
    assert schedule_text(found, "de", "de") == german


@pytest.mark.parametrize(
    ("options", "language", "shown"),
    [
        ({}, "en", "16 Nov 2026"),
        ({"locale": "en-US"}, "en", "Nov 16, 2026"),
        ({"locale": "de-DE"}, "en", "16 Nov 2026"),
        ({"language": "de"}, "de", "16. Nov. 2026"),
        ({"locale": "xx"}, "en", "16 Nov 2026"),
    ],
)
def test_days_are_in_the_language_of_the_mail(options: dict[str, Any], language: str, shown: str) -> None:
    assert MailStyle.of(language, options, None).day(date(2026, 11, 16)) == shown


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_of_a_mail_has_enough_contrast(palette: Palette) -> None:
    for ink, ground in TEXT_ON.items():
        assert contrast(getattr(palette, ink), getattr(palette, ground)) >= 4.5, ink


@pytest.mark.parametrize(("palette", "place"), [(LIGHT, 0), (DARK, 1)], ids=["light", "dark"])
def test_a_mail_has_the_colours_of_the_page(palette: Palette, place: int) -> None:
    css = (PAGE_FILES / "style.css").read_text()
    for name in Palette.__slots__:
        found = re.findall(rf"--{name.replace('_', '-')}: (#\w+);", css)[place]
        full = found if len(found) == 7 else "#" + "".join(digit * 2 for digit in found[1:])
        assert getattr(palette, name) == full, name


def test_a_mail_uses_no_other_colours() -> None:
    """Each colour has its counterpart on the dark page: the classes of the elements change it."""
    html = mail(notification(**WEEK, warnings={"cut_cells": 2})).html + mail(failure()).html
    known = {getattr(palette, name) for palette in (LIGHT, DARK) for name in Palette.__slots__}
    assert set(re.findall(r"#[0-9a-f]{6}\b", html)) <= known
    for style_text in re.findall(r'<\w+([^>]*style="[^"]*(?:color|background):#[^"]*")', html):
        assert "class=" in style_text


def test_filters_of_a_bundle_are_named_with_their_datasets() -> None:
    filters: dict[str, Any] = {
        "ledger": {"kind": "proof", "id": {"gte": 5}},
        "proofs": {"id": {"in": [1, 2]}},
        "a": {"eq": 1},
    }
    found = filter_texts(filters, style())
    assert found[0] == "ledger: kind = proof"
    assert "ledger: id" in found[1]
    assert found[2].startswith("proofs: id")
    assert found[3] == "a = 1"


def test_columns_have_their_labels_where_the_file_has_them() -> None:
    """P12: what has no label, or is not in the file, has its name."""
    labels = {"placed_at": "Bestellt am", "total": "Summe (EUR)"}
    about = notification(
        labels=labels,
        filters={"placed_at": {"gte": "2026-10-01", "lte": "2026-10-31"}, "kind": "a"},
        columns=["placed_at", "total", "note"],
        options={"language": "de", "headers": "labels"},
    )
    text = mail(about).text
    assert "Bestellt am: 1.–31. Okt. 2026 · kind = a" in text
    assert "Bestellt am, Summe (EUR), note" in text
    assert "placed_at" not in text
