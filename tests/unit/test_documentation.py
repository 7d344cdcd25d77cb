"""The documents are complete: every command, dataset, format, setting, event and call is in them."""

import re
from pathlib import Path

import pytest

from api.app import create_app
from producers.__main__ import cli
from stream_app.exports.filters.conditions import COMPARISONS, LISTS, TEXTUAL
from stream_app.exports.formats.registry import FORMATS
from stream_app.settings import Settings
from streaming_exporter.events import EventType, Topic
from tests.built_once import command_of
from tests.documents import DOCUMENTS

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


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w.-]+)", (ROOT / "README.md").read_text()))
    assert {path.name for path in DOCS.glob("*.md")} - linked <= {"licences.md"}


@pytest.mark.parametrize("command", sorted(command_of(cli).list_commands(None)))  # type: ignore[attr-defined]
def test_every_command_is_documented(command: str) -> None:
    assert f"`{command}`" in COMMANDS or f"`exporter {command}`" in COMMANDS


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_documented(name: str) -> None:
    assert f"`{name}`" in FORMATS_PAGE


@pytest.mark.parametrize("operator", [*COMPARISONS, *LISTS, *TEXTUAL, "is_null"])
def test_every_operator_is_documented(operator: str) -> None:
    assert re.search(rf"\b{operator}\b", REQUESTS)


@pytest.mark.parametrize("word", [*EventType, *Topic])
def test_every_event_and_topic_is_documented(word: str) -> None:
    assert f"`{word}`" in EVENTS


def test_every_call_is_documented() -> None:
    calls = {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{id}', path)}"
        for path, item in create_app(Settings()).openapi()["paths"].items()
        for method in item
        if method != "head"
    }
    assert calls
    assert not {call for call in calls if f"`{call}`" not in HTTP}


def test_links_lead_to_existing_targets() -> None:
    for document in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_that_are_named_exist(document: Path) -> None:
    folders = "|".join((*PACKAGES, "docs", "streaming_exporter"))
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{document.name}: {path}"


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
