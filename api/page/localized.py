"""The page's HTML and its messages in the language of a user."""

import json
import re
from functools import cache
from html import escape
from pathlib import Path

from starlette.requests import Request

from stream_app.messages.catalogue import (
    LANGUAGES,
    Message,
    accepted_language,
    known_language,
    messages,
    page_messages,
    text,
)

COOKIE = "language"
"""Name of the cookie with the language that the user chose on the page."""

_PLACE = re.compile(r"\{\{([\w.]+)\}\}")


def language_of(request: Request) -> str:
    """Return the language that the user chose on the page, or else the one that the browser prefers."""
    chosen = known_language(request.cookies.get(COOKIE))
    return chosen or accepted_language(request.headers.get("Accept-Language", ""))


@cache
def localized_html(path: Path, language: str) -> bytes:
    """Return an HTML file, with the messages in the place of their keys, such as ``{{page.jobs.title}}``.

    Raises:
        KeyError: there is no such message.
    """

    def replaced(place: re.Match[str]) -> str:
        if place[1] == "language":
            return language
        if place[1] == "languages":
            return _options(language)
        if place[1] == "scripts":
            return _preloads(path.parent)
        return escape(text(language, place[1]))

    return _PLACE.sub(replaced, path.read_text("utf-8")).encode()


@cache
def only_in_html(folder: Path) -> frozenset[str]:
    """Return the keys of the messages that the HTML in ``folder`` has and no script names."""
    scripts = "".join(path.read_text("utf-8") for path in folder.glob("*.js"))
    places = _PLACE.findall((folder / "index.html").read_text("utf-8"))
    return frozenset(key for key in places if "." in key and key not in scripts)


@cache
def messages_json(language: str, part: str | None = None) -> bytes:
    """Return the messages of the page, or of a part of it, as a JSON object by their keys.

    Those that only the HTML has are in it already.
    """
    in_html = only_in_html(Path(__file__).parent / "static")
    known = page_messages(language, part)
    found: dict[str, Message] = {key: own for key, own in known.items() if key not in in_html}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), default=dict).encode()


OF_OPERATORS = frozenset(
    {
        "operations.js",
        "operator_jobs.js",
        "dead_letters.js",
        "destination_tests.js",
        "operations.css",
    }
)
"""Modules and styles that the page loads only for users with the role to operate the service."""

OF_PROVIDER = "openid.js"
"""The module that the page loads only where users sign in with an identity provider."""


OF_DESTINATIONS = "destinations.js"
"""The module that the page loads only for users who can send files to a destination, or who did."""


def _preloads(folder: Path) -> str:
    """Return the elements that load all modules at once: otherwise each is asked for when one names it."""
    others = {"main.js", OF_PROVIDER, OF_DESTINATIONS, *OF_OPERATORS}
    names = sorted(path.name for path in folder.glob("*.js") if path.name not in others)
    return "".join(f'<link rel="modulepreload" href="page/{name}">' for name in names)


def _options(language: str) -> str:
    """Return the options of a list of all languages, each in its own language."""
    return "".join(
        f'<option value="{tag}" lang="{tag}"{" selected" * (tag == language)}>'
        f"{escape(str(messages(tag)['name']))}</option>"
        for tag in LANGUAGES
    )
