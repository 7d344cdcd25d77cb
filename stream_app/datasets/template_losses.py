"""Says which parts of the Excel templates the exports lack, because openpyxl cannot keep them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from zipfile import BadZipFile, ZipFile

import structlog

from stream_app.datasets.models import Dataset

log = structlog.get_logger(__name__)

NAMED = 10
"""How many parts of one kind are named: a template can have thousands of shapes."""

LOGGED_XML_BYTES = 2 * 2**20
"""Largest template whose losses a process logs, by the size of its XML.

A workbook of that size, with 50,000 cells, takes some seconds and 40 MB of memory. What larger ones lose is
named only by ``exporter datasets check`` and ``exporter doctor``.
"""

KEPT_RESULTS = 1_000

_known: dict[bytes, list[str]] = {}
"""The lost parts by the digest of a template, because many datasets can have the same one."""


def log_template_losses(datasets: Iterable[Dataset]) -> None:
    """Log a line for each dataset whose exports lack parts of its template.

    It takes seconds for a template with many cells, so no start must wait for it.
    """
    for dataset, parts in template_losses(datasets, largest=LOGGED_XML_BYTES):
        template = str(dataset.template)
        log.warning("dataset.template_parts_lost", dataset=dataset.name, template=template, parts=parts)


def template_losses(
    datasets: Iterable[Dataset], *, largest: int | None = None
) -> Iterator[tuple[Dataset, Sequence[str]]]:
    """Yield the datasets whose exports lack parts of their template, with these parts as texts.

    Templates with more than ``largest`` bytes of XML are left out.
    """
    for dataset in datasets:
        if dataset.template is not None:
            try:
                content = dataset.template.read_bytes()
            except OSError:  # an error of the dataset, which is reported as one
                continue
            if largest is not None and _xml_bytes(content) > largest:
                continue
            if parts := _kept_parts(content):
                yield dataset, parts


def _kept_parts(content: bytes) -> list[str]:
    """Return :func:`lost_parts` of a template. They are kept, so that it is compared once."""
    digest = hashlib.sha256(content).digest()
    if digest not in _known:
        if len(_known) >= KEPT_RESULTS:
            _known.clear()
        _known[digest] = lost_parts(content)
    return _known[digest]


def _xml_bytes(content: bytes) -> int:
    try:
        with ZipFile(BytesIO(content)) as archive:
            return sum(item.file_size for item in archive.infolist() if item.filename.endswith(".xml"))
    except BadZipFile:
        return 0


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
