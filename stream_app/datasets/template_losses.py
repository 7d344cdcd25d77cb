"""Says which parts of the Excel templates the exports lack, because openpyxl cannot keep them."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO

import structlog

from stream_app.datasets.models import Dataset

log = structlog.get_logger(__name__)

NAMED = 10
"""How many parts of one kind are named: a template can have thousands of shapes."""


def log_template_losses(datasets: Iterable[Dataset]) -> None:
    """Log a line for each dataset whose exports lack parts of its template."""
    for dataset, parts in template_losses(datasets):
        template = str(dataset.template)
        log.warning("dataset.template_parts_lost", dataset=dataset.name, template=template, parts=parts)


def template_losses(datasets: Iterable[Dataset]) -> Iterator[tuple[Dataset, Sequence[str]]]:
    """Yield the datasets whose exports lack parts of their template, with these parts as texts."""
    for dataset in datasets:
        if dataset.template is not None:
            try:
                content = dataset.template.read_bytes()
            except OSError:  # an error of the dataset, which is reported as one
                continue
            if parts := lost_parts(content):
                yield dataset, parts


def lost_parts(content: bytes) -> list[str]:
    """Return the parts of a workbook that openpyxl does not keep: for each sheet the kinds with their names.

    The workbook is compared with what openpyxl saves of it. One that it cannot read or save has no such
    parts: that is an error of the dataset.
    """
    from stream_app.datasets.excel_template import open_template  # openpyxl is large
    from stream_app.datasets.template_parts import find_parts

    try:
        found = find_parts(content)
        if not found:
            return []
        saved = BytesIO()
        open_template(content).save(saved)
        kept = find_parts(saved.getvalue())
    except Exception:  # a foreign file can have anything, and its exports must go on
        return []
    return [
        _text(sheet, kind, names, len(kept.get((sheet, kind), ())))
        for (sheet, kind), names in found.items()
        if len(kept.get((sheet, kind), ())) < len(names)
    ]


def _text(sheet: str, kind: str, names: Sequence[str], kept: int) -> str:
    named = [repr(name) for name in names if name]
    text = " ".join(filter(None, (kind, ", ".join(named[:NAMED]))))
    if len(named) > NAMED:
        text += f" and {len(named) - NAMED} more"
    if kept:
        text += f" ({len(names) - kept} of {len(names)})"
    return f"sheet {sheet!r}: {text}" if sheet else text
