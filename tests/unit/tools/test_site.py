"""The site has the pages of the repository, with links that work there, and loads nothing from elsewhere."""

import re
from pathlib import Path

import pytest
import typer

from producers.__main__ import cli
from tests.rows import each_row
from tools import metrics_table, site


@each_row(
    ("source", "text", "expected"),
    [
        ("README.md", "[a](docs/http.md#calls)", "[a](http.md#calls)"),
        ("README.md", "[a](docs/decisions/)", "[a](decisions/README.md)"),
        ("README.md", "[a](SECURITY.md)", "[a](report_a_weakness.md)"),
        ("README.md", "[a](deploy/helm/)", "a (`deploy/helm`)"),
        ("README.md", "[LICENSE](LICENSE)", "LICENSE"),
        ("docs/http.md", "[a](events.md)", "[a](events.md)"),
        ("docs/http.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/decisions/README.md", "[a](../http.md)", "[a](../http.md)"),
        ("docs/decisions/README.md", "[a](https://example.com/x)", "[a](https://example.com/x)"),
        ("README.md", '<img src="docs/images/page.png">', '<img src="images/page.png">'),
    ],
)
def test_links_lead_to_pages_of_the_site(source: str, text: str, expected: str) -> None:
    assert site.with_links(source, text) == expected


def test_the_navigation_names_pages_that_exist_and_every_page_of_the_documentation() -> None:
    written = {"commands_reference.md", "metrics.md", "error_codes.md", *site.OUTSIDE.values()}
    pages = [page for part in site.NAVIGATION for group in part.values() for page in group]
    assert len(pages) == len(set(pages))
    assert [page for page in pages if page not in written and not (site.ROOT / "docs" / page).is_file()] == []
    assert [path.name for path in (site.ROOT / "docs").glob("*.md") if path.name not in pages] == []


def test_reference_pages_have_all_commands_metrics_and_codes() -> None:
    group = typer.main.get_command(cli)
    names = group.list_commands(typer.Context(group))  # type: ignore[attr-defined]
    reference = site.commands()
    assert [name for name in names if f"`exporter {name}`" not in reference] == []
    dashboard = (site.ROOT / "observe" / "alerts.yml").read_text("utf-8")
    used = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bexporter_[a-z_]+", dashboard)
    }
    assert used - set(re.findall(r"^\| `(\w+)`", metrics_table.document(), re.MULTILINE)) == set()
    assert "| `too_large` |" in site.error_codes()


@pytest.mark.parametrize(
    ("html", "foreign"),
    [
        ('<script src="assets/a.js"></script><a href="https://example.com">x</a>', 0),
        ('<script src="https://cdn.example.com/a.js"></script>', 1),
        ('<link rel="preconnect" href="//fonts.example.com">', 1),
        ('<link rel="canonical" href="https://docs.example.com/x/">', 0),
        ('<img alt="a" src=https://example.com/a.png>', 1),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(
    html: str, foreign: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "HTML", tmp_path)
    (tmp_path / "index.html").write_text(html)
    assert len(site.foreign_requests()) == foreign


def test_fonts_and_search_are_local() -> None:
    made = site.configuration(diagrams=False)
    assert made["theme"]["font"] is False  # type: ignore[index]
    assert made["plugins"] == ["search"]
    assert made["extra_javascript"] == []
    assert "mermaid" not in str(made["markdown_extensions"]), "the theme would load a script from elsewhere"
