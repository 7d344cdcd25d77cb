"""The page's files are small, load nothing from other hosts, and never use text as markup."""

import re
from pathlib import Path

import httpx2
import pytest

from api.page.compressed_files import accepts_gzip
from api.page.localized import OF_DESTINATIONS, OF_OPERATORS, OF_PROVIDER
from api.page.routes import PAGE_FILES
from stream_app.messages.catalogue import PARTS_ON_DEMAND, page_messages, text
from tests.rows import each_row
from tests.unit.api.apps import app_of

PAGE = [path for path in PAGE_FILES.iterdir() if path.suffix in {".html", ".css", ".svg"}]
SCRIPTS = list(PAGE_FILES.glob("*.js"))


def client() -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app_of())
    return httpx2.AsyncClient(transport=transport, base_url="http://api")


async def test_a_first_visit_is_small() -> None:
    """Bytes that are sent for the page, its styles, its scripts and its messages."""
    sent = 0
    places = ["/" if path.name == "index.html" else f"/page/{path.name}" for path in [*PAGE, *SCRIPTS]]
    later = {OF_PROVIDER, OF_DESTINATIONS, *OF_OPERATORS}
    places = [place for place in places if place.rpartition("/")[2] not in later]
    async with client() as visitor:
        for place in [*places, "/page/messages/de.json"]:
            async with visitor.stream("GET", place, headers={"Accept-Encoding": "gzip"}) as response:
                assert response.headers["Content-Encoding"] == "gzip"
                sent += len(b"".join([chunk async for chunk in response.aiter_raw()]))
    assert sent < 60_000


def code_of(line: str) -> str:
    """Return a line without the comment at its end."""
    code, comment, _ = line.partition(" // ")
    quotes = "\"'`" if comment else '"`'  # a regular expression can have one apostrophe
    assert all(code.count(quote) % 2 == 0 for quote in quotes), "a text with two slashes"
    return code


@each_row("script", SCRIPTS)
async def test_a_script_is_served_without_comments_and_indentation(script: Path) -> None:
    source = script.read_text()
    assert all(line.count("`") % 2 == 0 for line in source.splitlines()), "a text of several lines"
    comments = ("//", "/**", "*")
    lines = [line.strip() for line in source.splitlines()]
    kept = [code_of(line) for line in lines if line and not line.startswith(comments)]
    async with client() as visitor:
        answer = await visitor.get(f"/page/{script.name}")
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.text.splitlines() == kept


@pytest.mark.parametrize(
    "place", ["/", "/page/main.js", "/page/messages/en.json", "/docs", "/docs/assets/swagger-ui.css"]
)
async def test_both_forms_of_a_file_are_kept_apart(place: str) -> None:
    async with client() as visitor:
        plain = await visitor.get(place, headers={"Accept-Encoding": "identity"})
        small = await visitor.get(place, headers={"Accept-Encoding": "br, gzip;q=0.5"})
        assert "Content-Encoding" not in plain.headers
        assert small.headers["Content-Encoding"] == "gzip"
        assert plain.content == small.content
        assert plain.headers["ETag"] != small.headers["ETag"]
        for response in (plain, small):
            assert response.headers["Vary"].split(", ")[0] == "Accept-Encoding"
            assert response.headers["Content-Security-Policy"]
            assert response.headers["Content-Type"] == plain.headers["Content-Type"]


async def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    async with client() as visitor:
        for encoding in ("gzip", "identity"):
            first = await visitor.get("/page/main.js", headers={"Accept-Encoding": encoding})
            headers = {"Accept-Encoding": encoding, "If-None-Match": first.headers["ETag"]}
            again = await visitor.get("/page/main.js", headers=headers)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["Content-Security-Policy"]


@each_row(
    ("accepted", "expected"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.1", True),
        ("*", True),
        ("gzip;q=0", False),
        ("*, gzip;q=0", False),
        ("gzip;q=x", False),
        ("gzip;q=\xb2", False),
        ("gzip;q=1.2.3", False),
        ("gzip;q=", False),
        ("gzip ; q = 0.001 , br", True),
        ("gzip;q=1.", True),
        ("identity", False),
        ("", False),
    ],
)
def test_the_accepted_encoding(accepted: str, expected: bool) -> None:
    assert accepts_gzip(accepted) is expected


@each_row("path", [*PAGE, *SCRIPTS])
def test_nothing_is_loaded_from_other_hosts(path: Path) -> None:
    text = path.read_text()
    addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+[^\s\"')]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}


@each_row("path", SCRIPTS)
def test_scripts_cannot_create_markup(path: Path) -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|createCont"
    assert not re.search(sinks, path.read_text())


@pytest.mark.parametrize(
    "path", ["/", "/page/style.css", "/page/main.js", "/page/icon.svg", "/page/messages/de.json"]
)
async def test_everything_is_served_under_the_policy(path: str) -> None:
    async with client() as browser:
        answer = await browser.get(path)
        again = await browser.get(path, headers={"If-None-Match": answer.headers["etag"]})
        probe = await browser.head(path)
    assert answer.status_code == probe.status_code == 200
    for response in (answer, again, probe):
        policy = response.headers["content-security-policy"].split("; ")
        assert {"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-cache"
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, "en"),
        ({"Accept-Language": "de-AT,en;q=0.5"}, "de"),
        ({"Accept-Language": "fr,en;q=0.5"}, "en"),
        ({"Accept-Language": "de", "Cookie": "language=en"}, "en"),
        ({"Cookie": "language=de"}, "de"),
        ({"Cookie": "language=../de"}, "en"),
    ],
)
async def test_the_page_is_in_the_language_of_the_user(headers: dict[str, str], language: str) -> None:
    """The one that was chosen on the page, or else that of the browser. Caches keep them apart."""
    async with client() as browser:
        answer = await browser.get("/", headers=headers)
    assert f'<html lang="{language}">' in answer.text
    assert f'page/messages/{language}.json"' in answer.text
    assert f'value="{language}" lang="{language}" selected' in answer.text
    assert f">{text(language, 'page.sign_in.title')}</h1>" in answer.text
    assert answer.headers["Content-Language"] == language
    assert {"Accept-Language", "Cookie"} <= set(answer.headers["Vary"].split(", "))
    assert "{{" not in answer.text


async def test_scripts_have_all_messages_that_they_name() -> None:
    """Those that only the HTML has are not sent again. A script can make keys from their beginnings."""
    async with client() as browser:
        sent = (await browser.get("/page/messages/de.json")).json().keys()
    scripts = "".join(path.read_text() for path in SCRIPTS)
    begins = tuple(re.findall(r"`(page\.[\w.]+)\$\{", scripts))
    named = {key for key in page_messages("de") if f'"{key}"' in scripts or key.startswith(begins)}
    assert begins
    assert named <= sent
    assert "page.sign_in.title" not in sent


@pytest.mark.parametrize("part", PARTS_ON_DEMAND)
async def test_the_messages_of_a_part_are_sent_when_it_is_needed(part: str) -> None:
    async with client() as browser:
        whole = (await browser.get("/page/messages/de.json")).json()
        own = (await browser.get(f"/page/messages/de/{part}.json")).json()
        assert (await browser.get(f"/page/messages/fr/{part}.json")).status_code == 404
    assert own
    assert not own.keys() & whole.keys()
    assert own == page_messages("de", part)


async def test_all_files_of_the_page_exist() -> None:
    async with client() as browser:
        page = (await browser.get("/")).text
        names = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
        for script in SCRIPTS:
            names += [
                f"page/{name}"
                for name in re.findall(r'(?:from |import\(|new URL\()"\./([^"]+)"', script.read_text())
            ]
        assert {f"page/{path.name}" for path in [*PAGE, *SCRIPTS]} - {"page/index.html"} <= set(names)
        for name in names:
            assert (await browser.get(f"/{name}")).status_code == 200, name


@pytest.mark.parametrize(
    "path",
    [
        "/page/..%2f..%2fapp.py",
        "/page/../site.py",
        "/page/",
        "/page/none.js",
        "/page/messages/fr.json",
        "/page/messages/en/jobs.json",
    ],
)
async def test_nothing_else_is_served(path: str) -> None:
    async with client() as browser:
        answer = await browser.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@each_row("path", SCRIPTS)
def test_modules_export_what_others_import(path: Path) -> None:
    """A browser refuses a whole module if one name is missing."""
    for names, module in re.findall(r'import \{ ([^}]+) \} from "\./([\w-]+\.js)"', path.read_text()):
        script = (PAGE_FILES / module).read_text()
        exported = set(re.findall(r"export (?:async )?(?:const|let|class|function\*?) (\w+)", script))
        for group in re.findall(r"export \{ ([^}]+) \}", script):
            exported |= set(group.split(", "))
        assert {name.partition(" as ")[0] for name in names.split(", ")} <= exported, module
