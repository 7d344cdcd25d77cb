"""The page is in the language of the browser, or in the one that the user chooses."""

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.browser import Visit

pytestmark = pytest.mark.browser

ENGLISH = r"\b(rows|ready|download|columns|files|schedules?|usual|none|every|yes|no)\b"


@pytest.mark.parametrize("visit", [{"locale": "de-DE"}], indirect=True)
def test_the_page_is_in_german(visit: Visit, customer: str) -> None:
    """With its numbers and dates; no English text and no key is left. The choice of English is remembered."""
    texts = visit.sign_in_as(customer, "de")
    page = visit.page
    page.get_by_label("Datensatz").select_option("shop_orders")
    page.get_by_label("Format").select_option("excel")
    expect(page.locator(".estimate")).to_contain_text(re.compile(r"72 Zeilen, \d+(,\d)? kB"))
    page.get_by_role("button", name=texts("page.filters.add")).click()
    for part in page.locator("#builder details").all():
        part.locator("summary").click()
    page.get_by_label(texts("page.repeat.title")).select_option("weekly")
    expect(page.get_by_label(texts("page.repeat.weekday"), exact=True).locator("option").first).to_have_text(
        "Montag"
    )
    shown = page.locator("body").inner_text()
    page.get_by_label(texts("page.repeat.title")).select_option("")
    page.locator("#builder .drop").click()
    page.get_by_role("button", name=texts("page.form.export"), exact=True).click()
    card = page.locator("#job-list > li").first
    expect(card.locator(".state")).to_have_text("Fertig")
    expect(card).to_contain_text("heute, ")
    expect(card).to_contain_text("72 Zeilen")
    shown += card.inner_text()
    assert "page." not in shown
    assert not re.findall(ENGLISH, shown, flags=re.IGNORECASE)
    page.get_by_label("Sprache", exact=True).select_option("en")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    expect(page.locator("#language")).to_have_value("en")
