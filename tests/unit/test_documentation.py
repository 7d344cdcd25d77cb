"""The documents are complete: every command, dataset, format, setting, event and call is in them."""

import re
from pathlib import Path

import pytest

from producers.__main__ import cli
from stream_app.exports.filters.conditions import COMPARISONS, LISTS, TEXTUAL
from stream_app.exports.formats.registry import FORMATS
from streaming_exporter.events import EventType, Topic
from tests.built_once import command_of
from tests.documents import DOCUMENTS
from tests.rows import each_row
from tests.unit.api.apps import openapi

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMANDS = (DOCS / "commands.md").read_text()
EVENTS = (DOCS / "events.md").read_text()
FORMATS_PAGE = (DOCS / "formats.md").read_text()
HTTP = (DOCS / "http.md").read_text()
REQUESTS = (DOCS / "requests.md").read_text()

README_LINES = 150
"""The README's limit: it leads to the pages, and does not hold them."""


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_the_picture_of_the_demo_shows_no_numbered_files() -> None:
    """They come from files of an earlier demonstration, which a reader does not have."""
    picture = (DOCS / "images" / "demo.svg").read_text("utf-8")
    assert "demo-exports/ledger-" in picture
    assert not re.search(r"\(\d+\)\.", picture)


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w.-]+)", (ROOT / "README.md").read_text()))
    assert {path.name for path in DOCS.glob("*.md")} - linked <= {"licences.md"}


@each_row("command", sorted(command_of(cli).list_commands(None)))  # type: ignore[attr-defined]
def test_every_command_is_documented(command: str) -> None:
    assert f"`{command}`" in COMMANDS or f"`exporter {command}`" in COMMANDS


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_documented(name: str) -> None:
    assert f"`{name}`" in FORMATS_PAGE


@each_row("operator", [*COMPARISONS, *LISTS, *TEXTUAL, "is_null"])
def test_every_operator_is_documented(operator: str) -> None:
    assert re.search(rf"\b{operator}\b", REQUESTS)


@each_row("word", [*EventType, *Topic])
def test_every_event_and_topic_is_documented(word: str) -> None:
    assert f"`{word}`" in EVENTS


def test_every_call_is_documented() -> None:
    calls = {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{id}', path)}"
        for path, item in openapi()["paths"].items()
        for method in item
        if method != "head"
    }
    assert calls
    assert not {call for call in calls if f"`{call}`" not in HTTP}


PAGES = sorted(
    {*DOCUMENTS, *ROOT.glob("*.md"), *ROOT.glob("bench/**/*.md"), *ROOT.glob("clients/*/*.md")}
    | {*ROOT.glob("examples/*/*.md"), *ROOT.glob(".github/**/*.md")}
)
"""All documents that people read, also those without tested blocks."""


def _without_blocks(document: Path) -> str:
    return re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)


def _anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", _without_blocks(document), re.M)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-") for text in texts}


_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)")
"""A link to a file or a heading of this repository."""


def test_links_to_files_are_told_from_addresses() -> None:
    text = "[a](http.md#b) [c](https://example.com) [d](http://example.com) [e](mailto:a@example.com) [f](#g)"
    assert _LINK.findall(text) == ["http.md#b", "#g"]


@each_row("document", PAGES)
def test_links_lead_to_existing_targets(document: Path) -> None:
    for target in _LINK.findall(_without_blocks(document)):
        path, _, anchor = target.partition("#")
        found = document.parent / path if path else document
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in _anchors(found), target


SERVERS = ("uvicorn app", "runserver", "java -jar", "webhook.mjs")
"""Programs of the examples that run until they are stopped."""


@pytest.mark.parametrize(
    "readme", sorted(ROOT.glob("examples/*/README.md")), ids=lambda path: path.parent.name
)
def test_commands_after_a_server_name_another_terminal(readme: Path) -> None:
    """A server holds its terminal, so a command behind it never runs there."""
    for block in re.findall(r"```sh\n(.*?)```", readme.read_text("utf-8"), re.DOTALL):
        lines = block.splitlines()
        held = [number for number, line in enumerate(lines) if any(name in line for name in SERVERS)]
        for line in lines[min(held, default=len(lines)) + 1 :]:
            assert "in another terminal" in line


def test_requests_of_the_tutorial_name_datasets_of_the_tutorial() -> None:
    text = (DOCS / "tutorial.md").read_text("utf-8")
    datasets = set(re.findall(r"^\[datasets\.(\w+)\]", text, re.M))
    named = re.findall(r"""(?:export_type": "|--export-type )(\w+)""", text)
    assert len(named) > 10
    assert set(named) <= datasets


PACKAGES = (
    "api",
    "bench",
    "deploy",
    "dev",
    "examples",
    "observe",
    "producers",
    "requirements",
    "stream_app",
    "tests",
    "tools",
)


@each_row("document", DOCUMENTS)
def test_paths_that_are_named_exist(document: Path) -> None:
    folders = "|".join((*PACKAGES, "docs", "streaming_exporter"))
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{document.name}: {path}"
    for module in re.findall(r"`([\w-]+/[\w./-]*\.py)`", text):
        assert any((ROOT / base / module).exists() for base in ("", "stream_app")), (
            f"{document.name}: {module}"
        )


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    listed = re.findall(
        r"^(\d+)\. \[(.*)\]\((.*)\)$", (ROOT / "docs" / "decisions" / "README.md").read_text("utf-8"), re.M
    )
    assert [name for *_, name in listed] == records
    for number, title, name in listed:
        heading = (ROOT / "docs" / "decisions" / name).read_text("utf-8").partition("\n")[0]
        assert heading == f"# {number}. {title}"


_OWN_PACKAGE = re.compile(r"""(?<![\w./-])["']?streaming[-_]exporter[\w-]*(\[[\w,]+\])?["']?(?=\s|$)""")


def test_own_packages_are_installed_by_path() -> None:
    """No index has them, so a command that names one fails, or installs what somebody else has put there."""
    commands = [
        line.partition("#")[0]
        for document in (*DOCUMENTS, *ROOT.glob("examples/*/README.md"), *ROOT.glob("clients/*/README.md"))
        for line in re.findall(
            r"(?:pip|npm|uv) (?:pip )?(?:install|add) [^`\n]*", document.read_text("utf-8")
        )
    ]
    assert sum("streaming_exporter" in command for command in commands) > 3
    assert [command for command in commands if _OWN_PACKAGE.search(command)] == []
    assert _OWN_PACKAGE.search('pip install "streaming-exporter[http,kafka]" django')
    assert not _OWN_PACKAGE.search('pip install "$EXPORTER/streaming_exporter[http]" ./streaming_exporter')
