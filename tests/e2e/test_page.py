"""The page in a real browser, on the whole system."""

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Route, expect

from dev.postgres import SOURCE
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.browser import Visit, confirm
from tests.e2e.conftest import System
from tests.e2e.tables import psql
from tests.gate import closed_gate

pytestmark = pytest.mark.browser


def test_an_invalid_token_is_refused(visit: Visit, settings: Settings) -> None:
    visit.open()
    page = visit.page
    alert = page.get_by_role("alert")
    for token, said in [
        ("hello", "That does not look like an access token"),
        (sign_token(settings, "ada")[:-4] + "AAAA", "The token is not valid"),
        (sign_token(settings, "ada", hours=-1), "The token has expired. Get a new one"),
    ]:
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(alert).to_contain_text(said)
        expect(page.get_by_role("heading", name="New export")).to_be_hidden()
    assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"
    visit.forgive("status of 401")


def test_a_token_stays_in_its_tab_until_it_expires(visit: Visit, settings: Settings) -> None:
    page = visit.page
    page.clock.install()
    visit.sign_in(sign_token(settings, "ada", ["exports:admin"], hours=2))
    expect(page.locator("#who")).to_contain_text("ada (admin) signed in until ")
    page.reload()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    assert page.evaluate("[location.href, localStorage.length, document.cookie]") == [visit.url + "/", 0, ""]
    page.clock.fast_forward("01:59:00")
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    page.clock.fast_forward("01:00")
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
    assert page.evaluate("sessionStorage.length") == 0
    expect(page.get_by_role("heading", name="New export")).to_be_hidden()


def test_from_a_form_to_a_file(visit: Visit, system: System, customer: str, tmp_path: Path) -> None:
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    expect(page.locator(".estimate")).to_contain_text("72 rows, ")
    visit.filter("total", "at least").get_by_label("Value for total").fill("200.5")
    moment = visit.filter("placed_at", "from")
    moment.get_by_label("Value for placed_at, date").fill("2026-01-10")
    moment.get_by_label("Value for placed_at, time").fill("12:30")
    visit.filter("paid", "is").get_by_label("Value for paid").select_option(label="true")
    page.locator("summary", has_text="Options").click()
    page.get_by_label("Separator of columns").select_option(label="Semicolon")
    page.locator("summary", has_text="Columns").click()
    page.get_by_role("checkbox", name="items").uncheck()
    expect(page.locator(".estimate")).not_to_contain_text("72 rows")
    expect(page.locator(".estimate")).to_contain_text(" rows, ")

    with page.expect_download() as download:  # a small export is downloaded without a further click
        card = visit.export()
    expect(card.locator(".state")).to_have_text("Ready")
    for said in ("total ≥ 200.5", "placed_at from 10 Jan 2026, 12:30", "(Europe/Berlin)", "paid = true"):
        expect(card).to_contain_text(said)
    path = tmp_path / "orders.csv"
    download.value.save_as(path)
    assert download.value.suggested_filename.startswith("orders-")

    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), delimiter=";"))
    wanted = psql(
        system.stack,
        "COPY (SELECT id FROM shop.orders WHERE customer_id = 'customer-1' AND total >= 200.5 "
        "AND placed_at >= '2026-01-10T12:30+01' AND paid ORDER BY placed_at, id) TO STDOUT",
    )
    assert [row["id"] for row in rows] == wanted.split()
    assert list(rows[0]) == ["id", "customer_id", "total", "note", "paid", "placed_at"]
    expect(card).to_contain_text(f"{len(rows)} rows")


def test_an_export_of_several_files(visit: Visit, customer: str, tmp_path: Path) -> None:
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    page.locator("summary", has_text="Files").click()
    page.get_by_label("Divide into").select_option(label="A number of rows in each")
    page.get_by_label("Rows in each file").fill("30")
    card = visit.export()
    expect(card.locator(".state")).to_have_text("Ready")
    expect(card.locator(".facts")).to_contain_text("3 files · 72 rows")
    expect(card.get_by_role("button", name="Download")).to_be_hidden()
    card.get_by_role("button", name="Files").click()
    files = card.get_by_role("list", name="Files").get_by_role("listitem")
    expect(files).to_have_count(3)
    expect(files.nth(2)).to_contain_text("-00003.csv")
    expect(files.nth(2)).to_contain_text("12 rows")
    lines = 0
    for number in range(3):
        with page.expect_download() as download:
            files.nth(number).get_by_role("button").click()
        path = tmp_path / str(number)
        download.value.save_as(path)
        assert download.value.suggested_filename.endswith(f"-0000{number + 1}.csv")
        header, *rows = csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
        assert header[0] == "id"
        lines += len(rows)
    assert lines == 72
    card.get_by_role("button", name="Files").click()
    expect(files.first).to_be_hidden()
    card.get_by_role("button", name="Edit and run again").click()
    expect(page.get_by_label("Rows in each file")).to_have_value("30")


@pytest.mark.parametrize("feed", ["events", "questions"])
def test_progress_is_live(visit: Visit, system: System, anybody: str, feed: str) -> None:
    """By events, or by polling if events are not possible. Then the browser's clock is three hours ahead."""
    if feed == "questions":
        visit.page.clock.install(time=time.time() + 3 * 3600)
        visit.page.route("**/exports/events", lambda route: route.fulfill(status=404, json={"detail": ""}))
    visit.sign_in(anybody)
    expect(visit.page.locator("#live")).to_have_text("live" if feed == "events" else "")
    visit.choose("readings", "ndjson")
    with closed_gate(system.stack.postgres.admin_url(SOURCE)):
        card = visit.export()
        expect(card.locator(".state")).to_have_text("Running")
        bar = card.get_by_role("progressbar")
        expect(bar).to_have_attribute("max", "300")
        seen = float(bar.get_attribute("value") or 0)
        assert 0 < seen < 300
        expect(card.locator(".facts")).to_contain_text("of about 300 rows")
        expect(card.locator(".facts")).to_contain_text(re.compile(r" · [1-9]\d* per second · [\d.]+ s left"))
    expect(card.locator(".state")).to_have_text("Ready")
    expect(bar).to_be_hidden()
    expect(card.locator(".facts")).to_contain_text("300 rows")
    expect(visit.page.get_by_role("status").last).to_have_text("readings NDJSON: Ready. 300 rows")
    if feed == "questions":
        visit.forgive("status of 404")


def test_a_running_export_can_be_cancelled(visit: Visit, system: System, anybody: str) -> None:
    visit.sign_in(anybody)
    visit.choose("gated", "csv")
    with closed_gate(system.stack.postgres.admin_url(SOURCE)):
        card = visit.export()
        expect(card.locator(".state")).to_have_text("Running")
        card.get_by_role("button", name="Cancel").click()
        expect(card.locator(".state")).to_have_text("Cancelled")
    expect(card.get_by_role("button", name="Edit and run again")).to_be_focused()
    expect(card.get_by_role("button", name="Download")).to_be_hidden()


def test_errors_are_shown_as_text(visit: Visit, anybody: str) -> None:
    visit.sign_in(anybody)
    page = visit.page
    visit.choose("million", "pdf")
    expect(page.locator(".estimate")).to_contain_text("A pdf file can have at most 100,000 rows")
    expect(page.locator(".estimate")).to_have_class("estimate wrong")
    card = visit.export()
    expect(card.locator(".state")).to_have_text("Failed")
    expect(card.locator(".error")).to_contain_text("100")
    visit.choose("orders", "csv")
    row = visit.filter("total", "is")
    for wrong, said in {
        "1.234,5": "without separators of thousands",
        "12,x": "such as 12.5",
        "": "Fill in",
    }.items():
        row.get_by_label("Value for total").fill(wrong)
        page.get_by_role("button", name="Export", exact=True).click()
        expect(row.get_by_label("Value for total")).to_be_focused()
        assert said in row.get_by_label("Value for total").evaluate("own => own.validationMessage")
    with page.expect_request("**/exports/jobs:estimate") as asked:
        row.get_by_label("Value for total").fill("200,5")
    assert json.loads(asked.value.post_data or "")["filters"] == {"total": {"eq": "200.5"}}
    row.get_by_label("Value for total").fill("1" * 400)
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.locator("#builder").get_by_role("alert")).to_contain_text("expected a finite number")
    expect(row).to_have_class("filter wrong")
    visit.forgive("status of 422")


LARGE = 1234567890123456789
"""A whole number that browsers would round to 1234567890123456800."""

READ = [
    (f'{{"id": {LARGE}, "in": [{-LARGE}, 9007199254740991]}}',
     {"id": str(LARGE), "in": [str(-LARGE), 9007199254740991]}),
    (f'{{"{LARGE}": "{LARGE}, \\"{LARGE}\\" \\\\", "n": 9007199254740993}}',
     {str(LARGE): f'{LARGE}, "{LARGE}" \\', "n": "9007199254740993"}),
    ("[0.12345678901234567, 1234567890123456.5, 1.5E+300, -1e-17, 0, true, null]",
     [0.12345678901234567, 1234567890123456.5, 1.5e300, -1e-17, 0, True, None]),
    (f" {LARGE} ", str(LARGE)),
]  # fmt: skip
"""JSON texts, and the values that the page reads in them."""

READER = "async (text) => (await import(new URL('page/api.js', document.baseURI))).parse(text)"


def test_again_repeats_the_request(visit: Visit, system: System, anybody: str) -> None:
    """Also an export that was requested since the page was opened, and large numbers and hidden fields."""
    order: dict[str, Any] = {
        "export_type": "orders",
        "format": "ndjson",
        "columns": ["id", "note"],
        "consistency": "part",
        "split": {"bytes": 5_400_000},
        "filters": {
            "id": {"lte": LARGE, "not_in": [9007199254740993, -LARGE]},
            "placed_at": {"gte": "2026-01-02", "lt": "2026-01-20T06:30:00Z"},
            "customer_id": {"in": ["customer-1", "customer-2"], "prefix": "customer"},
            "paid": True,
            "note": {"is_null": False},
        },
        "options": {"compression": "gzip"},
        "scope": "all",
    }
    headers = {"Authorization": f"Bearer {anybody}"}
    visit.sign_in(anybody)
    expect(visit.page.locator("#live")).to_have_text("live")
    assert [visit.page.evaluate(READER, text) for text, _ in READ] == [value for _, value in READ]
    made = system.client.post("/exports/jobs", json=order, headers=headers).raise_for_status().json()
    first = visit.page.locator(f"#job-{made['export_job_id']}")
    for shown in (f"id ≤ {LARGE}", f"id none of 9007199254740993, -{LARGE}"):
        expect(first).to_contain_text(shown)
    expect(first.locator(".state")).to_have_text("Ready")  # its buttons stay in their places from now on
    first.get_by_role("button", name="Edit and run again").click()
    expect(visit.page.get_by_label("Dataset")).to_be_focused()
    with visit.page.expect_request(
        lambda request: request.method == "POST" and request.url.endswith("/exports/jobs")
    ) as sent:
        visit.export()
    body = json.loads(sent.value.post_data or "")
    numbers = {"lte": str(LARGE), "not_in": ["9007199254740993", str(-LARGE)]}
    assert body.pop("filters") == {**order["filters"], "id": numbers, "paid": {"eq": True}}
    assert body == {name: value for name, value in order.items() if name != "filters"}
    expect(visit.newest().locator(".state")).to_have_text("Ready")


def test_the_link_of_an_export_leads_back_to_it(
    visit: Visit, customer: str, anybody: str, settings: Settings
) -> None:
    """P7: after signing in. Operators see its state. Others learn who can give them the file."""
    page = visit.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.sign_in(customer)
    visit.choose("orders", "csv")
    card = visit.export()
    expect(card.locator(".state")).to_have_text("Ready")  # its buttons stay in their places from now on
    card.get_by_role("button", name="Copy link").click()
    expect(card).to_contain_text("Link copied. After signing in")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{visit.url}/#{card.get_attribute('id')}"
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    card.get_by_role("button", name="Copy link").click()
    expect(card).to_contain_text(f"Copy this link: {link}")

    def follow(token: str) -> None:
        page.get_by_role("button", name="Sign out").click()
        page.goto("about:blank")
        page.goto(link)
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()

    follow(customer)
    expect(card).to_be_focused()
    expect(card.get_by_role("button", name="Edit and run again")).to_be_visible()
    answers = 0

    def still_running(route: Route) -> None:
        nonlocal answers
        answers += 1
        answer = route.fetch()
        route.fulfill(
            response=answer, json={**answer.json(), **({"status": "processing"} if answers == 1 else {})}
        )

    identity = str(card.get_attribute("id")).removeprefix("job-")
    page.route(f"**/exports/jobs/{identity}", still_running)
    listed = re.compile(r"/exports/jobs\?")
    page.route(listed, lambda route: route.fulfill(json={"jobs": [], "next_cursor": None}))
    follow(sign_token(settings, f"operator-{uuid4().hex[:8]}", ["exports:operate"]))
    expect(card).to_be_focused()
    expect(card.locator(".state")).to_have_text("Ready")
    for closed in ("Download", "Edit and run again", "Remove"):
        expect(card.get_by_role("button", name=closed)).to_have_count(0)
    assert answers > 1
    page.unroute(listed)
    follow(anybody)
    expect(page.get_by_role("alert")).to_contain_text("it belongs to another user")
    visit.forgive("status of 404")


def test_a_link_whose_export_cannot_be_read_is_not_reported_as_gone(visit: Visit, anybody: str) -> None:
    """P7: an answer in doubt is no "no". The link is not for the user who signs in next."""
    page = visit.page
    link = f"{visit.url}/#job-{uuid4()}"
    page.route(
        "**/exports/jobs/*-*", lambda route: route.fulfill(status=500, json={"detail": "It is broken"})
    )
    page.goto(link)
    page.get_by_label("Token").fill(anybody)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("It is broken")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{visit.url}/")
    expect(page.locator("#link-problem")).to_be_hidden()
    visit.forgive("status of 500")


def test_a_file_is_removed_when_asked_twice(visit: Visit, anybody: str) -> None:
    visit.sign_in(anybody)
    visit.choose("markup", "csv")
    card = visit.export()
    expect(card.locator(".state")).to_have_text("Ready")
    confirm(card, "Remove", "Remove the file?")
    expect(card.locator(".state")).to_have_text("Removed")
    expect(card).to_contain_text("The file was removed")
    expect(card.get_by_role("button", name="Edit and run again")).to_be_focused()
    expect(card.get_by_role("button", name="Download")).to_be_hidden()


def test_texts_are_shown_as_text(visit: Visit, anybody: str, tmp_path: Path) -> None:
    """Names, descriptions, values and titles that are HTML are shown, not run."""
    visit.sign_in(anybody)
    page = visit.page
    visit.choose("markup", "pdf")
    evil = "<img src=x onerror=alert(1)>"
    expect(page.get_by_text("<script>alert('description')</script>")).to_be_visible()
    visit.filter("mark", "is").get_by_label("Value for mark").select_option(label=evil)
    visit.filter("<b>title</b>", "contains").get_by_label("Value for <b>title</b>").fill("<i>")
    page.locator("summary", has_text="Options").click()
    page.get_by_label("Title", exact=True).fill(evil)
    card = visit.export()
    expect(card).to_contain_text(f"mark = {evil}")
    expect(card).to_contain_text("<b>title</b> contains <i>")
    expect(card.locator(".state")).to_have_text("Ready")
    assert page.locator("main img, main b, main i, main script").count() == 0


def test_older_exports_are_loaded_on_request(visit: Visit, system: System, anybody: str) -> None:
    headers = {"Authorization": f"Bearer {anybody}"}
    for kind in ("csv", "json", "ndjson"):
        order = {"export_type": "markup", "format": kind, "scope": "all"}
        system.client.post("/exports/jobs", json=order, headers=headers).raise_for_status()

    def shorter(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=10", "limit=2"))

    visit.page.route("**/exports/jobs?limit=10*", shorter)
    visit.sign_in(anybody)
    kinds = visit.page.locator("#job-list .kind")
    expect(kinds).to_have_text(["NDJSON", "JSON"])
    visit.page.get_by_role("button", name="Older exports").click()
    expect(kinds).to_have_text(["NDJSON", "JSON", "CSV"])
    expect(visit.page.get_by_role("button", name="Older exports")).to_be_hidden()


def test_a_schedule_is_made_run_paused_and_deleted(visit: Visit, anybody: str) -> None:
    visit.sign_in(anybody)
    page = visit.page
    expect(page.get_by_text("No schedules yet.")).to_be_visible()
    make_schedule(visit)
    card = page.locator("#schedule-list > li")
    expect(card).to_contain_text("Every Friday at 18:30 (Europe/Berlin)")
    expect(card).to_contain_text("Rows of the previous week · mail to ada@example.com")
    runs = card.locator(".runs li")
    expect(runs).to_have_count(5)
    assert all(text.startswith("Fri") and text.endswith("18:30") for text in runs.all_inner_texts())
    card.get_by_role("button", name="Run now").click()
    expect(page.locator("#job-list > li .state")).to_have_text("Ready")
    card.get_by_text("Past runs").click()
    outcome = re.compile(r"^\w{3},? .*: Ready · .* to .* \(Europe/Berlin\) · 0 rows · [\d.]+ \w+$")
    expect(card.locator(".history li > span:first-child")).to_have_text([outcome])
    card.get_by_role("button", name="Pause").click()
    expect(card.locator(".state")).to_have_text("Paused")
    expect(runs).to_have_count(0)
    card.get_by_role("button", name="Resume").click()
    expect(runs).to_have_count(5)
    confirm(card, "Delete", "Delete the schedule?")
    expect(page.get_by_text("No schedules yet.")).to_be_visible()


def make_schedule(visit: Visit) -> None:
    page = visit.page
    visit.choose("orders", "csv")
    page.get_by_label("Repeat").select_option(label="Every week")
    page.get_by_label("On", exact=True).select_option(label="Friday")
    page.get_by_label("At", exact=True).fill("18:30")
    expect(page.get_by_label("Time zone", exact=True)).to_have_value("Europe/Berlin")
    page.get_by_label("Which rows").select_option(label="Rows of the previous week")
    page.locator("summary", has_text="Mail").click()
    page.get_by_label("Send a mail to these addresses").fill("ada@example.com")
    page.get_by_role("button", name="Schedule and mail to 1", exact=True).click()
    expect(page.locator("#schedule-list > li").first).to_be_focused()


def test_the_pictures_in_the_readme(visit: Visit, settings: Settings, system: System) -> None:
    """No element is too wide on a desktop, in dark mode and on a phone."""
    visit.open()
    page = visit.page
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": 720, "height": 520})
    visit.shot("page-sign-in")
    page.set_viewport_size({"width": 1280, "height": 900})
    token = sign_token(settings, "user-1", ["exports:all"])
    order = {"export_type": "million", "format": "pdf", "scope": "all", "name": "Ledger to print"}
    system.client.post(
        "/exports/jobs", json=order, headers={"Authorization": f"Bearer {token}"}
    ).raise_for_status()
    visit.sign_in(token)
    expect(visit.newest().locator(".state")).to_have_text("Failed")
    make_schedule(visit)
    visit.choose("enrollments", "excel")
    expect(visit.export().locator(".state")).to_have_text("Ready")
    visit.choose("ledger", "csv")
    visit.filter("kind", "is").get_by_label("Value for kind").fill("proof")
    visit.filter("created_at", "from").get_by_label("Value for created_at, date").fill("2026-01-01")
    expect(page.locator(".estimate")).to_contain_text(" rows, ")
    expect(visit.export().locator(".state")).to_have_text("Ready")
    visit.choose("readings", "ndjson")
    with closed_gate(system.stack.postgres.admin_url(SOURCE)):
        card = visit.export()
        expect(card.locator(".facts")).to_contain_text("of about 300 rows")
        page.locator("#job-list > li").nth(1).get_by_role("button", name="Edit and run again").click()
        expect(page.locator(".estimate")).to_contain_text(" rows, ")
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur(); scrollTo({ top: 0, behavior: 'instant' })")
        visit.assert_fits()
        visit.shot("page")
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 23, 22)"
        visit.shot("page-dark")
        page.set_viewport_size({"width": 360, "height": 780})
        visit.assert_fits()
        page.evaluate("document.querySelector('#jobs').scrollIntoView({ behavior: 'instant' })")
        visit.shot("page-phone-dark")
        page.emulate_media(color_scheme="light")
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
        visit.shot("page-phone")


def test_the_keyboard_is_enough(visit: Visit, customer: str) -> None:
    visit.open()
    page = visit.page
    keys = page.keyboard
    expect(page.get_by_label("Token")).to_be_focused()
    keys.insert_text(customer)
    keys.press("Enter")
    expect(page.locator("#new")).to_be_focused()

    def tab_to(name: str) -> None:
        for _ in range(60):
            keys.press("Tab")
            focused = page.evaluate(
                "(({innerText, ariaLabel, labels}) => ariaLabel ?? labels?.[0]?.innerText ?? innerText)"
                "(document.activeElement)"
            )
            if focused.startswith(name):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", name
                return
        raise AssertionError(f"no way to {name}")

    tab_to("Dataset")
    keys.type("ord")
    tab_to("Format")
    keys.type("nd")
    tab_to("+ Add filter")
    keys.press("Enter")
    expect(page.get_by_label("Column", exact=True)).to_be_focused()
    keys.type("id")
    tab_to("Condition")
    keys.type("below")
    tab_to("Value for id")
    keys.insert_text("100")
    expect(page.locator(".estimate")).to_contain_text("15 rows, ")
    tab_to("Export")
    expect(page.get_by_role("button", name="Export", exact=True)).to_be_focused()
    keys.press("Enter")
    card = visit.page.locator("#job-list > li").first
    try:
        expect(card).to_be_focused()
    except AssertionError as error:
        raise AssertionError(page.get_by_role("alert").all_inner_texts()) from error
    expect(card).to_contain_text("id < 100")
    expect(card.locator(".state")).to_have_text("Ready")
    with page.expect_download() as download:
        tab_to("Download")
        keys.press("Enter")
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(1, 100, 7))


def test_the_reference_loads_nothing_from_elsewhere(visit: Visit) -> None:
    """S1: under a strict policy, without a message on the console."""
    page = visit.page
    page.goto(f"{visit.url}/docs")
    expect(page.get_by_text("/exports/jobs", exact=True).first).to_be_visible()
    page.locator(".opblock-summary").first.click()
    page.get_by_role("button", name="Authorize").first.click()
    page.locator("input[type=text]").first.fill("a.b.c")
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
