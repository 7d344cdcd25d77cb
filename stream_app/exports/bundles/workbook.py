"""The workbook of a bundle: an overview of its datasets, then the sheets of each dataset."""

from collections.abc import Iterator, Sequence
from typing import Any

from stream_app.exports.bundles.members import BundleFacts, Members, WrittenMember
from stream_app.exports.bundles.readme import extent
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.stage_spans import StageTimes, TimedChunks, rendering_span
from stream_app.messages.catalogue import text
from stream_app.text_style import TextStyle

CAPTIONS = ("dataset", "sheets", "rows", "columns", "as_of", "timezone", "extent")
"""The columns of the overview: the keys of their captions."""


def bundle_workbook(
    file_format: ExcelFormat,
    members: Members,
    facts: BundleFacts,
    documents: Sequence[Document],
    tally: Tally,
    times: StageTimes,
    written: list[WrittenMember],
) -> Iterator[bytes]:
    """Yield the bytes of the workbook.

    Args:
        file_format: the format.
        members: the datasets with their rows.
        facts: what is known about the file.
        documents: the facts about all datasets, in the order of ``members``. Their time can be wrong.
        tally: counts rows and warnings.
        times: the busy seconds of the stages.
        written: gets what was written of each dataset.
    """
    # openpyxl is large, and most exports make no workbooks.
    from stream_app.exports.formats.excel.sections import Overview, SectionedWorkbook

    words = FileWords.of(facts.request.options)
    style = TextStyle.of(facts.request.options.timezone, facts.request.options.locale)

    def lines(titles: Sequence[Sequence[str]]) -> list[list[Any]]:
        return _overview_lines(titles, documents, written, style, facts)

    book = SectionedWorkbook(
        documents,
        Overview(
            title=facts.title,
            sheet=text(words.language, "files.bundle.overview"),
            captions=[text(words.language, f"files.bundle.captions.{name}") for name in CAPTIONS],
            rows=lines,
        ),
        file_format.last_row,
    )
    archive = Archive(facts.as_of)
    yield from book.begin(archive)
    for number, (member, rows) in enumerate(members):
        before = tally.warnings.copy()
        read = TimedChunks(rows)
        yield from rendering_span(book.write(number, member.document, read, archive, tally), read, times)
        warnings = member.warnings(tally.warnings - before)
        written.append(WrittenMember(member, warnings, sheets=tuple(book.sections[number].titles)))
    yield from book.rest(archive)


def _overview_lines(
    titles: Sequence[Sequence[str]],
    documents: Sequence[Document],
    written: Sequence[WrittenMember],
    style: TextStyle,
    facts: BundleFacts,
) -> list[list[Any]]:
    """Return the lines of the overview. Those of datasets that are not written yet have no numbers."""
    lines: list[list[Any]] = []
    for number, (document, sheets) in enumerate(zip(documents, titles, strict=True)):
        item = written[number] if number < len(written) else None
        document = item.member.document if item else document
        lines.append(
            [
                document.title or document.dataset,
                ", ".join(sheets),
                item.member.row_count if item else 0,
                len(document.columns),
                style.moment(document.as_of),
                document.options.timezone or "UTC",
                "; ".join(extent(facts, item)) if item else "",
            ]
        )
    return lines
