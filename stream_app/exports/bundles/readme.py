"""The text in a bundle's archive that explains it to people. Pure."""

from collections.abc import Sequence
from textwrap import fill

from stream_app.datasets.bundles import SUBJECT_ACCESS
from stream_app.datasets.rights import ALL, OWN
from stream_app.exports.bundles.members import BundleFacts, WrittenMember
from stream_app.exports.formats.base import Format
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.filter_words import FilterWords
from stream_app.messages.catalogue import messages, text
from stream_app.text_style import TextStyle

WIDTH = 78


class _Words:
    """Writes the sentences in the language, the locale and the time zone of the request."""

    def __init__(self, facts: BundleFacts) -> None:
        options = facts.request.options
        self.words = FileWords.of(options)
        self.style = TextStyle.of(options.timezone, options.locale)

    def text(self, key: str, plural: int | None = None, **values: object) -> str:
        return text(self.words.language, f"files.bundle.{key}", plural, **values)


def readme(facts: BundleFacts, written: Sequence[WrittenMember], file_format: Format) -> str:
    """Return the text: what the files are, of when their data is, and how to read and check them."""
    words = _Words(facts)
    times = sorted({item.member.document.as_of for item in written})
    paragraphs = [f"{facts.title}\n{'=' * min(len(facts.title), WIDTH)}"]
    if facts.kind == SUBJECT_ACCESS:
        is_whole = not any(item.member.document.filters for item in written)
        key = "subject_access" if is_whole else "subject_access_filtered"
        paragraphs.append(words.text(key, user=facts.request.user_id))
    paragraphs.append(words.text("files", len(written), count=words.style.number(len(written))))
    paragraphs += [_about(facts, item, words) for item in written]
    if len(times) > 1:
        paragraphs.append(words.text("several_snapshots"))
    else:
        paragraphs.append(words.text("one_snapshot", time=words.style.moment(facts.as_of)))
    if facts.kind != SUBJECT_ACCESS:
        scope = facts.request.scope
        key = {OWN: "own_rows", ALL: "all_rows"}.get(scope, "rows_of_scope")
        paragraphs.append(words.text(key, user=facts.request.user_id, scope=scope))
    if f"files.bundle.formats.{file_format.name}" in messages(words.words.language):
        paragraphs.append(words.text(f"formats.{file_format.name}"))
    paragraphs.append(words.text("manifest"))
    return "\n\n".join(_wrapped(item) for item in paragraphs) + "\n"


def extent(facts: BundleFacts, item: WrittenMember) -> list[str]:
    """Return which rows a file has: its filters, and whether it is whole beside files with a window."""
    words, document = _Words(facts), item.member.document
    filters = FilterWords.of(document, words.style, words.words).line(document.filters)
    return [
        *([text(words.words.language, "files.filters", filters=filters)] if filters else []),
        *([words.text("no_window")] if facts.window and item.member.window_column is None else []),
    ]


def _about(facts: BundleFacts, item: WrittenMember, words: _Words) -> str:
    """Return the lines about one file: its name, what it has, and which rows."""
    member = item.member
    rows = text(
        words.words.language,
        "files.row" if member.row_count == 1 else "files.rows",
        number=words.style.number(member.row_count),
    )
    size = words.style.size(item.file_size)
    lines = [f"{member.title}: {rows}, {size}", *extent(facts, item)]
    time = words.style.moment(member.document.as_of)
    if member.document.as_of != facts.as_of or member.snapshot != 1:
        lines.append(text(words.words.language, "files.as_of", time=time))
    return "\n".join([f"* {item.file_name}", *(f"  {line}" for line in lines)])


def _wrapped(paragraph: str) -> str:
    """Break the lines of a paragraph of one line. Others have lines of their own."""
    if "\n" in paragraph:
        return paragraph
    return fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
