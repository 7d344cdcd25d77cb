"""Prepares the documentation as a site, and checks what was built: ``make site``.

The pages are the Markdown files of the repository, with links that fit the site, and three that are written
from the code: commands, metrics and error codes.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

import typer
import yaml
from typer.cli import get_docs_for_click

from producers.__main__ import cli
from tools import metrics_table

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".local" / "site"
PAGES, HTML, CONFIG = FOLDER / "pages", FOLDER / "html", FOLDER / "mkdocs.yml"
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report_a_weakness.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
}
"""Pages outside of ``docs``, and their names on the site."""

MERMAID = "mermaid@11.12.0"
_FENCE = "!!python/name:pymdownx.superfences.fence_code_format"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href|srcset)=["']?(https?:)?//[^\s"'>]+"""
)

NAVIGATION = [
    {"Start": ["index.md", "tutorial.md", "comparison.md"]},
    {"Ask for exports": [
        "requests.md", "http.md", "events.md", "formats.md", "types.md", "files.md", "bundles.md",
        "encryption.md", "delivery.md", "destinations.md",
    ]},
    {"Adopt": [
        "datasets.md", "queries.md", "rights.md", "masks.md", "languages.md", "identity_providers.md",
        "sources.md", "plugins.md", "clients.md", "outbox.md", "commands.md",
    ]},
    {"Run": ["operations.md", "observability.md", "security.md", "scaling.md"]},
    {"Reference": [
        "settings.md", "commands_reference.md", "metrics.md", "log_events.md", "error_codes.md",
        "glossary.md", "licences.md",
    ]},
    {"Change": ["architecture.md", "contributing.md", "decisions/README.md", "changelog.md"]},
]  # fmt: skip
"""The parts of the site. Pages that are in none, such as decisions, are found by the search and by links."""


def placed(path: str) -> str | None:
    """Return where a file of the repository is on the site, or ``None`` if it is not there."""
    path = normpath(path)
    if path in OUTSIDE:
        return OUTSIDE[path]
    if (ROOT / path).is_dir():
        path = join(path, "README.md")
    inside = path.startswith("docs/") and (ROOT / path).is_file()
    return path.removeprefix("docs/") if inside else None


def with_links(source: str, text: str) -> str:
    """Return the text of a page with links to pages of the site; what is not on the site becomes a path."""
    here = dirname(placed(source) or "")

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = normpath(join(dirname(source), target))
        page = placed(path)
        if page is None:
            return label if path in label else f"{label} (`{path}`)"
        return f"[{label}]({relpath(page, here or '.')}{anchor or ''})"

    text = _LINK.sub(link, text)
    return re.sub(r'((?:src|srcset)=")docs/', r"\1", text)


def error_codes() -> str:
    """Return the page of error codes, from the texts that users see."""
    messages = tomllib.loads((ROOT / "stream_app" / "messages" / "en.toml").read_text("utf-8"))["errors"]
    rows = "".join(
        f"| `{code}` | {text} |\n" for code, text in sorted(messages.items()) if isinstance(text, str)
    )
    return (
        "# Error codes\n\nThe code of a failed job (`error.code`) and of a refused call (`code`), and what "
        "the page and mails\nsay about it. The answer of the API also has what exactly was wrong, and what "
        f"is allowed.\n\n| code | text |\n| --- | --- |\n{rows}"
    )


def commands() -> str:
    """Return the page of all commands, from the program itself."""
    group = typer.main.get_command(cli)
    return get_docs_for_click(obj=group, ctx=typer.Context(group, info_name="exporter"), name="exporter")


def write() -> None:
    """Write the pages and the configuration of the site anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    sources = [*OUTSIDE, *(f"docs/{path.relative_to(PAGES)}" for path in PAGES.rglob("*.md"))]
    for source in sources:
        text = (ROOT / source).read_text("utf-8")
        (PAGES / str(placed(source))).write_text(with_links(source, text), "utf-8")
    (PAGES / "metrics.md").write_text(metrics_table.document(), "utf-8")
    (PAGES / "error_codes.md").write_text(error_codes(), "utf-8")
    (PAGES / "commands_reference.md").write_text(commands(), "utf-8")
    text = yaml.safe_dump(configuration(diagrams=fetch_mermaid()), sort_keys=False)
    CONFIG.write_text(text.replace(f"format: '{_FENCE}'", f"format: {_FENCE} ''"), "utf-8")


def fetch_mermaid() -> bool:
    """Put the script that draws diagrams beside the pages, by npm; return whether it is there."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    packed = subprocess.run([npm, "pack", "--silent", MERMAID], cwd=FOLDER, capture_output=True, text=True)
    if packed.returncode != 0:
        return False
    with tarfile.open(FOLDER / packed.stdout.strip().splitlines()[-1]) as package:
        script = package.extractfile("package/dist/mermaid.min.js")
        if script is None:
            return False
        (PAGES / "mermaid.min.js").write_bytes(script.read())
    return True


def configuration(*, diagrams: bool) -> dict[str, object]:
    """Return what MkDocs reads. Fonts are the reader's own, and the search runs in the browser."""
    fences: dict[str, object] = {}
    if diagrams:  # without a script of its own the theme would load one from elsewhere
        fences = {"custom_fences": [{"name": "mermaid", "class": "mermaid", "format": _FENCE}]}
    return {
        "site_name": f"streaming-exporter {version('streaming-exporter')}",
        "docs_dir": str(PAGES),
        "site_dir": str(HTML),
        "theme": {
            "name": "material",
            "font": False,
            "features": ["navigation.tabs", "navigation.top", "content.code.copy", "toc.follow"],
            "palette": [
                {"media": "(prefers-color-scheme: light)", "scheme": "default"},
                {"media": "(prefers-color-scheme: dark)", "scheme": "slate"},
            ],
        },
        "plugins": ["search"],
        "extra_javascript": ["mermaid.min.js"] if diagrams else [],
        "markdown_extensions": [
            "tables",
            "attr_list",
            "md_in_html",
            {"toc": {"permalink": True}},
            {"pymdownx.superfences": fences},
        ],
        "validation": {
            "links": {"not_found": "warn", "anchors": "warn", "unrecognized_links": "warn"},
            "nav": {"omitted_files": "ignore", "not_found": "warn"},
        },
        "nav": NAVIGATION,
    }


def foreign_requests() -> list[str]:
    """Return what the built pages would load from other places."""
    return [
        f"{path.relative_to(HTML)}: {found[0][:200]}"
        for path in sorted(HTML.rglob("*.html"))
        for found in _LOADED.finditer(path.read_text("utf-8"))
        if 'rel="canonical"' not in found[0]
    ]


def main(step: str) -> int:
    """Do one step: ``write`` before MkDocs runs, ``check`` after it."""
    if step == "write":
        write()
        return 0
    found = foreign_requests()
    for line in found:
        print(f"site: {line}", file=sys.stderr)
    if not found:
        print(f"site: {sum(1 for _ in HTML.rglob('*.html'))} pages in {os.path.relpath(HTML, ROOT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
