"""Opens the page in a real browser, and collects the errors that it reports."""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    TimeoutError,
    expect,
    sync_playwright,
)

from stream_app.messages.catalogue import text
from tests.waiting import patient

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The same engine. The first has no windows, whose menus and tabs take half of the processor time."""
PROGRAM = os.environ.get("EXPORTER_TEST_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
SCREENSHOTS = os.environ.get("EXPORTER_TEST_SCREENSHOTS")
"""Folder for screenshots. If it is not set, none are taken: each costs the browser a fifth of a second."""

WAIT_SECONDS = patient(30_000)
"""Limit of a wait in milliseconds, for busy machines."""
expect.set_options(timeout=WAIT_SECONDS)

WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))
"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium without a window."""
    if PROGRAM is None:
        pytest.fail(
            "The page is tested in a real browser and none was found. Install Chromium "
            "(Debian, Ubuntu: apt-get install chromium), or name a Chromium in EXPORTER_TEST_BROWSER."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=PROGRAM,
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            timeout=WAIT_SECONDS,
        )
        yield browser
        browser.close()


@dataclass
class Visit:
    """One tab of one user."""

    page: Page
    url: str
    allowed: set[str]
    complaints: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)
    """Patterns of errors that the test expects any number of times."""

    def open(self) -> None:
        """Open the page without signing in."""
        self.page.goto(self.url)

    def sign_in(self, token: str) -> None:
        """Open the page and sign in with the token."""
        self.open()
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", name="New export")).to_be_visible()

    def sign_in_as(self, token: str, language: str) -> Callable[..., str]:
        """Open the page in one of its languages and sign in; return what gives its messages by their keys."""
        self.open()
        texts = partial(text, language)
        expect(self.page.locator("html")).to_have_attribute("lang", language)
        self.page.locator("#token").fill(token)
        self.page.get_by_role("button", name=texts("page.sign_in.submit")).click()
        expect(self.page.get_by_role("heading", name=texts("page.form.title"))).to_be_visible()
        return texts

    def choose(self, dataset: str, kind: str) -> None:
        """Choose dataset and format in the form."""
        self.page.locator("#builder").get_by_label("Dataset").select_option(dataset)
        self.page.get_by_label("Format").select_option(kind)

    def filter(self, column: str, condition: str) -> Locator:
        """Add a filter; return its row."""
        self.page.get_by_role("button", name="Add filter").click()
        row = self.page.locator(".filter").last
        row.get_by_label("Column").select_option(column)
        row.get_by_label("Condition").select_option(label=condition)
        return row

    def export(self) -> Locator:
        """Send the form; return the new export in the list."""
        self.page.locator("#job-list > li, #no-jobs:not([hidden])").first.wait_for()  # the list is loaded
        known = [card.get_attribute("id") for card in self.page.locator("#job-list > li").all()]
        self.page.get_by_role("button", name="Export", exact=True).click()
        new = self.page.locator("#job-list > li" + "".join(f":not(#{identity})" for identity in known))
        expect(new).to_have_count(1)
        return self.page.locator(f"#{new.get_attribute('id')}")

    def newest(self) -> Locator:
        """Return the export at the top of the list. It stays the same when others are added."""
        identity = self.page.locator("#job-list > li").first.get_attribute("id")
        assert identity
        return self.page.locator(f"#{identity}")

    def shot(self, name: str, **options: Any) -> None:
        """Take a screenshot with few colours, so that the file is small, if there is a folder for it."""
        if SCREENSHOTS:
            picture = self.page.screenshot(**options)
            folder = Path(SCREENSHOTS)
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.open(io.BytesIO(picture)).convert("RGB")
            image.quantize(128, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)

    def forgive(self, pattern: str) -> None:
        """Remove the errors that a test expects. There must be at least one."""
        assert any(re.search(pattern, text) for text in self.complaints), self.complaints
        self.forgiven.append(pattern)

    def assert_fits(self) -> None:
        """Check that no element is wider than the window."""
        width, inner = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= inner


@contextmanager
def visiting(browser: Browser, url: str, store: str, **options: Any) -> Iterator[Visit]:
    """Open a tab without history. At the end of the block the browser must have reported no error."""
    context = browser.new_context(
        **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "Europe/Berlin"}
        | options
    )
    context.set_default_timeout(WAIT_SECONDS)
    context.add_init_script(WATCH_POLICY)
    page = context.new_page()
    visit = Visit(page, url, {urlsplit(url).netloc, urlsplit(store).netloc})

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.complaints.append(message.text)

    def on_request(request: Request) -> None:
        if urlsplit(request.url).scheme in ("http", "https", "ws", "wss"):
            if urlsplit(request.url).netloc not in visit.allowed:
                visit.complaints.append(f"asked {request.url}")
            if urlsplit(request.url).netloc == urlsplit(store).netloc and "authorization" in request.headers:
                visit.complaints.append(f"sent the token to {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))

    def on_dialog(dialog: Dialog) -> None:
        visit.complaints.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", on_dialog)
    page.on("request", on_request)
    yield visit
    context.close()
    unexpected = [text for text in visit.complaints if not any(re.search(p, text) for p in visit.forgiven)]
    assert unexpected == [], unexpected


def confirm(where: Page | Locator, name: str | re.Pattern[str], question: str, *, key: str = "") -> None:
    """Press a button that asks for confirmation, and confirm, by the mouse or by a key."""
    _press(unasked(where, name), key)
    confirm_asked(where, name, question, key=key)


def confirm_asked(
    where: Page | Locator, name: str | re.Pattern[str], question: str, *, key: str = ""
) -> None:
    """Confirm what a button asks.

    The question is shown for four seconds, and a busy machine can take longer. Then it is asked again.
    """
    shown = 3_000  # milliseconds
    while True:
        try:
            _press(where.get_by_role("button", name=question), key, timeout=shown)
            return
        except TimeoutError:
            _press(unasked(where, name), key)


def unasked(where: Page | Locator, name: str | re.Pattern[str]) -> Locator:
    """Return the button while it does not ask. Otherwise a further press would confirm."""
    return where.locator("button:not(.danger)").and_(where.get_by_role("button", name=name))


def _press(button: Locator, key: str, **options: Any) -> None:
    if key:
        button.press(key, **options)
    else:
        button.click(**options)
