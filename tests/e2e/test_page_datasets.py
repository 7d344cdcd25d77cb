"""The page shows what the datasets file has: labels, parameters, scopes, formats, zones, languages."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from openpyxl import load_workbook
from playwright.sync_api import expect

from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.browser import Visit, confirm

pytestmark = pytest.mark.browser


@pytest.fixture
def seller(settings: Settings, customer_id: str) -> str:
    """A token of a customer in the team of another one."""
    return sign_token(settings, customer_id, claims={"team": "customer-2"})


def sent(visit: Visit, path: str, act: Callable[[], Any]) -> dict[str, Any]:
    """Return the body that the page sends to ``path`` while ``act`` runs."""
    with visit.page.expect_request(
        lambda request: request.method == "POST" and request.url.endswith(path)
    ) as request:
        act()
    body: dict[str, Any] = json.loads(request.value.post_data or "")
    return body


def open_options(visit: Visit) -> None:
    visit.page.locator("summary", has_text="Options").click()


def test_labels_parameters_scopes_and_limits_are_shown(visit: Visit, seller: str, tmp_path: Path) -> None:
    visit.sign_in(seller)
    page = visit.page
    visit.choose("sales", "csv")
    expect(page.get_by_label("Dataset").locator("option:checked")).to_have_text("Sales")
    expect(page.get_by_text("Orders of a region · At most 1,000 rows in an export")).to_be_visible()
    expect(page.get_by_label("Format").locator("option")).to_have_text(["CSV", "Excel"])
    expect(page.get_by_label("Whose rows").locator("option")).to_have_text(["My own", "team"])
    page.locator("summary", has_text="Columns").click()
    expect(page.get_by_role("group", name="Columns")).to_contain_text("Total (EUR)total")
    expect(page.get_by_role("group", name="Columns")).to_contain_text("notemasked")
    region = page.get_by_label("Region")
    expect(region.locator("option")).to_have_text(["Choose …", "emea", "apac"])
    since = page.get_by_text("The first time of an order · Default: 2026-01-01T00:00:00Z")
    expect(since).to_be_visible()
    page.get_by_role("button", name="Export", exact=True).click()
    expect(region).to_be_focused()  # it is required

    region.select_option("emea")
    page.get_by_label("Since", exact=True).fill("2026-01-05")
    page.get_by_label("Whose rows").select_option("team")
    expect(page.locator(".estimate")).to_contain_text(" rows, ")
    with page.expect_download() as download:
        body = sent(visit, "/exports/jobs", lambda: visit.export())
    assert body["parameters"] == {"region": "emea", "since": "2026-01-05"}
    assert body["scope"] == "team"
    assert body["options"] == {"bom": True}
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"), newline="")))
    assert {row["customer_id"] for row in rows} == {"customer-2"}
    assert all(int(row["id"]) % 2 == 0 and row["placed_at"] >= "2026-01-05" for row in rows)
    assert rows[0]["placed_at"].endswith("+01:00"), "the time zone of the dataset"
    assert not [row for row in rows if row["note"].startswith("plain")]
    card = visit.newest()
    expect(card.get_by_role("heading")).to_contain_text("Sales CSV")
    for said in ("rows of team", "region = emea", "since on 5 Jan 2026"):
        expect(card).to_contain_text(said)


def test_captions_language_zone_and_locale_of_a_file(visit: Visit, seller: str, tmp_path: Path) -> None:
    visit.sign_in(seller)
    page = visit.page
    visit.choose("sales", "csv")
    page.get_by_label("Region").select_option("apac")
    open_options(visit)
    page.get_by_label("Captions").select_option(label="Labels")
    page.get_by_label("Language of the file and of mails").select_option(label="German")
    zone = page.get_by_label("Time zone of days and times")
    expect(zone).to_have_value("Europe/Berlin")  # that of the dataset
    zone.select_option("America/New_York")
    page.get_by_label("Numbers and dates as in").select_option("de-DE")
    expect(page.get_by_label("Separator of columns")).to_have_value(";")
    with page.expect_download() as download:
        body = sent(visit, "/exports/jobs", lambda: visit.export())
    assert body["options"] == {
        "headers": "labels",
        "language": "de",
        "timezone": "America/New_York",
        "locale": "de-DE",
        "delimiter": ";",
        "bom": True,
    }
    assert "scope" not in body
    text = Path(download.value.path()).read_text("utf-8-sig")
    assert text.splitlines()[0] == "id;customer_id;Summe (EUR);note;placed_at"
    first = next(csv.DictReader(io.StringIO(text, newline=""), delimiter=";"))
    assert "," in first["Summe (EUR)"]

    card = visit.newest()
    expect(card.locator(".state")).to_have_text("Ready")
    expect(page.get_by_label("Captions")).to_have_value("names")  # the form begins anew
    open_options(visit)
    page.get_by_label("Numbers and dates as in").select_option("fr-FR")
    visit.choose("orders", "ndjson")  # without labels
    expect(page.get_by_label("Captions")).to_have_count(0)
    expect(page.get_by_label("Numbers and dates as in")).to_have_value("fr-FR")
    card.get_by_role("button", name="Edit and run again").click()
    expect(page.get_by_label("Region")).to_have_value("1")
    assert sent(visit, "/exports/jobs", lambda: visit.export()) == body


def test_a_schedule_keeps_parameters_scope_and_options(visit: Visit, settings: Settings) -> None:
    visit.sign_in(sign_token(settings, f"seller-{uuid4().hex[:8]}", claims={"team": "customer-2"}))
    page = visit.page
    visit.choose("sales", "excel")
    page.get_by_label("Region").select_option("emea")
    page.get_by_label("Whose rows").select_option("team")
    open_options(visit)
    page.get_by_label("Captions").select_option(label="Labels")
    page.get_by_label("Time zone of days and times").select_option("UTC")
    page.get_by_label("Repeat").select_option(label="Every day")
    press = page.get_by_role("button", name="Schedule", exact=True)
    body = sent(visit, "/exports/schedules", lambda: press.click())
    assert body["parameters"] == {"region": "emea"}
    assert (body["scope"], body["timezone"]) == ("team", "Europe/Berlin")
    assert body["options"] == {"headers": "labels", "timezone": "UTC", "locale": "en-GB"}
    card = page.locator("#schedule-list > li")
    expect(card.get_by_role("heading")).to_contain_text("Sales Excel")
    expect(card).to_contain_text("region = emea")
    card.get_by_role("button", name="Run now").click()
    expect(page.locator("#job-list > li")).to_have_count(1)
    expect(visit.newest().locator(".state")).to_have_text("Ready")
    with page.expect_download() as download:
        visit.newest().get_by_role("button", name="Download").click()
    sheet = load_workbook(io.BytesIO(Path(download.value.path()).read_bytes())).worksheets[0]
    assert [cell.value for cell in sheet[1]] == ["id", "customer_id", "Total (EUR)", "note", "placed_at"]
    confirm(card, "Delete", "Delete the schedule?")
    expect(page.get_by_text("No schedules yet.")).to_be_visible()


@pytest.mark.parametrize("visit", [{"locale": "de-AT"}], indirect=True)
def test_labels_are_in_the_language_of_the_browser(visit: Visit, seller: str) -> None:
    """German counts for Austria. What has no label in that language has its general one."""
    visit.sign_in_as(seller, "de")
    page = visit.page
    page.get_by_label("Datensatz").select_option("sales")
    page.get_by_label("Format").select_option("csv")
    expect(page.get_by_label("Datensatz").locator("option:checked")).to_have_text("Verkäufe")
    expect(page.get_by_label("Gebiet")).to_be_visible()
    expect(page.get_by_label("Since", exact=True)).to_be_visible()
    page.get_by_role("button", name="Filter hinzufügen").click()
    expect(page.locator(".filter").get_by_label("Spalte").locator("option")).to_have_text(
        ["id", "customer_id", "Summe (EUR)", "placed_at"]  # the masked column cannot be filtered
    )
    page.locator("summary", has_text="Optionen").click()
    expect(page.get_by_label("Sprache der Datei und der E-Mails").locator("option:checked")).to_have_text(
        "Deutsch"
    )


def test_an_error_marks_the_parameter(visit: Visit, seller: str) -> None:
    visit.sign_in(seller)
    page = visit.page
    visit.choose("sales", "csv")
    page.get_by_label("Region").select_option("emea")
    page.get_by_label("Since", exact=True).fill("2026-01-05")
    expect(page.locator(".estimate")).to_contain_text(" rows, ")
    page.route(
        "**/exports/jobs:estimate",
        lambda route: route.fulfill(
            status=422, json={"detail": "parameters.since: too early", "field": "parameters.since"}
        ),
    )
    page.get_by_label("Since", exact=True).fill("2026-01-06")
    expect(page.locator(".estimate")).to_contain_text("parameters.since: too early")
    expect(page.locator(".field.wrong")).to_contain_text("Since")
    visit.forgive("status of 422")


def test_a_bundle_is_exported_into_one_file_with_filters_of_its_datasets(visit: Visit, seller: str) -> None:
    visit.sign_in(seller)
    page = visit.page
    visit.choose("account", "csv")
    expect(page.get_by_label("Dataset").locator("option:checked")).to_have_text("My account")
    expect(page.get_by_text("proofs, ledger in one file")).to_be_visible()
    for hidden in ("Columns", "Files"):
        expect(page.locator("#builder summary", has_text=hidden)).to_be_hidden()
    page.get_by_role("button", name="+ Add filter").click()
    page.get_by_label("Column", exact=True).select_option("ledger.id")
    page.get_by_label("Condition").select_option("gte")
    page.get_by_label("Value for ledger.id").fill("1")
    expect(page.locator(".estimate")).to_contain_text(" rows, ")
    with page.expect_download() as download:
        body = sent(visit, "/exports/jobs", lambda: visit.export())
    assert body["filters"] == {"ledger": {"id": {"gte": "1"}}}
    assert "columns" not in body
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        assert [name.partition("-")[0] for name in names[:2]] == ["proofs", "ledger"]
        assert names[2:] == ["README.txt", "manifest.json"]
        captions = archive.read(names[1]).decode("utf-8-sig").partition("\r\n")[0]
        manifest = json.loads(archive.read("manifest.json"))
    assert captions.startswith("id,kind,user_id")
    assert [file["filters"] for file in manifest["files"]] == [{}, {"id": {"gte": "1"}}]
    card = visit.newest()
    expect(card.get_by_role("heading")).to_contain_text("My account CSV")
    expect(card).to_contain_text("ledger: id ≥ 1")
