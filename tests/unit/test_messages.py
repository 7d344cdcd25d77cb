"""The catalogue of messages is complete in all languages, and no other text is in the page's scripts."""

import re
from pathlib import Path

import pytest

from api.page.routes import PAGE_FILES
from stream_app.messages.catalogue import (
    DEFAULT,
    LANGUAGES,
    PLACEHOLDER,
    Message,
    accepted_language,
    known_language,
    messages,
    page_messages,
    text,
)
from streaming_exporter.file_warnings import TEXTS, warning_texts
from tests.rows import each_row

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(PAGE_FILES.glob("*.js"))
PYTHON = [path for folder in ("stream_app", "api") for path in sorted((ROOT / folder).rglob("*.py"))]
SPEAKERS = ("stream_app.messages.catalogue", "stream_app.notifications.notification_words")
"""Modules that other modules get texts from."""
OTHERS = sorted(set(LANGUAGES) - {DEFAULT})


def forms(message: Message) -> list[str]:
    return [message] if isinstance(message, str) else list(message.values())


def placeholders(message: Message) -> list[set[str]]:
    return [set(PLACEHOLDER.findall(form)) for form in forms(message)]


def used_keys() -> list[str]:
    """Return patterns of the keys that scripts, HTML and modules name; a part in ``{…}`` is a variable."""
    keys = re.findall(r"\{\{([\w.]+\.[\w.]+)\}\}", (PAGE_FILES / "index.html").read_text())
    for path in SCRIPTS:
        keys += re.findall(r"(?<![.\w])(?:t|has)\(\s*[\"`]([^\"`]+)[\"`]", path.read_text())
        keys += [f"{group}.${{name}}" for group in re.findall(r'\bnamed\("([^"]+)"', path.read_text())]
    for path in PYTHON:
        module = path.read_text()
        if any(f"{name} import" in module for name in SPEAKERS):
            keys += re.findall(
                r"f?\"((?:page|mail|chat|link|warnings|errors|files|findings)\.[\w.{}]+)\"", module
            )
    return [re.sub(r"\\?\$?\\\{[^}]*\\\}", "[^.]+", re.escape(key)) for key in keys]


def test_there_are_english_and_german() -> None:
    assert {"en", "de"} <= set(LANGUAGES)


@pytest.mark.parametrize("language", OTHERS)
def test_all_languages_have_the_same_keys(language: str) -> None:
    assert messages(language).keys() == messages(DEFAULT).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_are_the_same_in_all_languages(language: str) -> None:
    for key, message in messages(DEFAULT).items():
        expected = placeholders(message)[-1]
        for found in placeholders(messages(language)[key]):
            assert found == expected or found == expected - {"count"}, (language, key)


@pytest.mark.parametrize("language", OTHERS)
def test_texts_are_translated(language: str) -> None:
    """Most texts of several words differ from the English ones."""
    same = [
        key
        for key, message in messages(DEFAULT).items()
        if message == messages(language)[key] and len(re.findall(r"[A-Za-z]{2,}", str(message))) > 2
    ]
    assert not [key for key in same if PLACEHOLDER.sub("", str(messages(DEFAULT)[key])).strip(" .,:()")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_has_untidy_spaces(language: str) -> None:
    for key, message in messages(language).items():
        for form in forms(message):
            assert form, (language, key)
            assert form == " ".join(form.split()), (language, key)


def test_every_used_key_exists() -> None:
    known = list(messages(DEFAULT))
    missing = [key for key in used_keys() if not any(re.fullmatch(key, own) for own in known)]
    assert not missing


def test_every_key_is_used() -> None:
    patterns = used_keys()
    unused = [key for key in messages(DEFAULT) if not any(re.fullmatch(own, key) for own in patterns)]
    assert unused == ["name"]  # of the language, for the list of languages


NEUTRAL = {
    "AbortError",
    "Authorization",
    "Accept",
    "Bearer",
    "CSV",
    "Content-Type",
    "Enter",
    "Excel",
    "Exports",
    "JSON",
    "Last-Event-ID",
    "NDJSON",
    "PDF",
    "Parquet",
    "Prefer",
    "Zstandard",
}
"""Words of protocols, and names that are the same in all languages."""


def literals(script: str) -> list[str]:
    """Return the texts in a script, without its comments, and without the code in templates."""
    plain = re.sub(r"/\*\*.*?\*/|(?:^|(?<=\s))//[^\n]*", "", script, flags=re.DOTALL)
    plain = re.sub(r"/(?:[^/\n\\]|\\.)+/[gimsuy]*(?=[.,;)\]])", "", plain)  # regular expressions
    found = re.findall(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'|`((?:[^`\\]|\\.)*)`", plain)
    return [re.sub(r"\$\{[^}]*\}", "\0", "".join(parts)) for parts in found]


def is_for_people(literal: str) -> bool:
    """Whether a literal is a text: a word with a capital letter, or two words with a space in between."""
    if literal.startswith(("./", "exports/", "Bearer ", "application/", "text/")) or literal in NEUTRAL:
        return False
    if re.fullmatch(r"[\w.-]*[#.>:\[][\w\s.,>:\[\]\"=-]*", literal):  # selectors, keys
        return False
    return bool(
        re.search(r"\b[A-Z][a-z]{2,}", literal) or re.search(r"[A-Za-z]{2,}[,.:]? [a-z]{2,}", literal)
    )


STYLES = re.compile(r"class: \"[^\"]*\"|className = \"[^\"]*\"|\"quiet drop\"|pattern: \"[^\"]*\"")


@each_row("path", SCRIPTS)
def test_scripts_have_no_texts_of_their_own(path: Path) -> None:
    """Each text that people read is a message, so that it can be had in all languages."""
    script = STYLES.sub("", path.read_text())
    assert not [found for found in literals(script) if is_for_people(found)]


@pytest.mark.parametrize(
    "text_of_script",
    [
        'showMessage(x, "Tick one")',
        "button(`Remove ${name}`, act)",
        'element("p", {}, "no rows yet")',
        'title = "Files"',
    ],
)
def test_texts_in_scripts_are_found(text_of_script: str) -> None:
    assert [found for found in literals(text_of_script) if is_for_people(found)]


def test_the_page_has_no_texts_of_its_own() -> None:
    html = (PAGE_FILES / "index.html").read_text()
    shown = re.findall(r">([^<]+)<", html) + re.findall(
        r'(?:aria-label|title|placeholder|alt)="([^"]+)"', html
    )
    assert not [found for found in shown if re.search(r"[A-Za-z]", re.sub(r"\{\{[\w.]+\}\}", "", found))]


@each_row(
    ("header", "language"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr, de;q=0.5, en;q=0.7", "en"),
        ("DE", "de"),
        ("de;q=0, en", "en"),
        ("fr-FR", "en"),
        ("", "en"),
        ("*", "en"),
        ("de;q=x", "en"),
        (",;=,", "en"),
    ],
)
def test_the_language_of_a_browser(header: str, language: str) -> None:
    assert accepted_language(header) == language


@each_row(
    ("tag", "language"),
    [
        ("de", "de"),
        ("de-CH", "de"),
        ("de_DE", "de"),
        ("EN", "en"),
        ("fr", None),
        ("", None),
        (None, None),
        (3, None),
    ],
)
def test_the_language_of_a_tag(tag: object, language: str | None) -> None:
    assert known_language(tag) == language


@pytest.mark.parametrize(
    ("language", "count", "expected"),
    [("en", 1, "1 row"), ("en", 1234, "1,234 rows"), ("de", 1, "1 Zeile"), ("de", 1234, "1.234 Zeilen")],
)
def test_the_form_for_a_number(language: str, count: int, expected: str) -> None:
    assert text(language, "page.numbers.rows", count=count) == expected


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError, match="user"):
        text("en", "page.jobs.for_user")


def test_warnings_are_those_of_the_client_library() -> None:
    """Commands and the page say the same."""
    known = {key.removeprefix("warnings.") for key in messages(DEFAULT) if key.startswith("warnings.")}
    assert known - {"other"} == TEXTS.keys()


def test_the_page_gets_its_own_messages_only() -> None:
    assert all(key.startswith(("page.", "warnings.", "errors.")) for key in page_messages(DEFAULT))
    assert warning_texts({"cut_cells": 1})
