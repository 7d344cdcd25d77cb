"""Finds the parts of an Excel workbook that openpyxl cannot keep, or can keep only sometimes.

openpyxl has cells, styles, tables, charts, pictures, comments and pivot tables in its model of a workbook. It
writes nothing else.
"""

import re
from collections.abc import Collection, Iterator
from io import BytesIO
from typing import Any
from zipfile import ZipFile

from openpyxl.packaging.relationship import Relationship, get_dependents, get_rels_path
from openpyxl.xml.constants import REL_NS
from openpyxl.xml.functions import fromstring

WORKBOOK = ""
"""Stands in the place of the name of a sheet for what belongs to the whole workbook."""

Parts = dict[tuple[str, str], list[str]]
"""The names of the parts of each kind, by the name of the sheet and the kind. A name can be empty."""

_OBJECTS = {"pic": "picture", "cxnSp": "line", "grpSp": "group of shapes", "contentPart": "ink drawing"}
"""Objects of a drawing by their elements, except shapes and frames."""

_FRAMES = {
    "chart": "chart",
    "chartex": "chart of a newer type",
    "diagram": "SmartArt graphic",
    "timeslicer": "timeline",
}
"""What a frame of a drawing shows, by the last word of the URI of its content, such as ``slicer``."""

_ELEMENTS = {
    "legacyDrawingHF": "pictures in headers and footers",
    "picture": "background picture",
    "customSheetViews": "custom views",
    "protectedRanges": "ranges that some users can edit",
}
"""Elements of a sheet that have no name."""

_EXTENSIONS = {
    "dataValidations": ("data validation of Excel 2010", "dataValidation"),
    "conditionalFormattings": ("conditional format of Excel 2010", "conditionalFormatting"),
    "sparklineGroups": ("sparkline", "sparkline"),
}
"""Extensions of a sheet, and the elements in them that name their cells."""

_HARMLESS_EXTENSIONS = frozenset({"slicerList", "timelineRefs", "ignoredErrors"})
"""Extensions that change no look, or belong to an object of a drawing."""

_FILES = {
    "vbaproject": "macros",
    "threadedcomments": "threads of comments",
    "connections": "data connections",
    "querytable": "query tables",
    "model": "data model",
    "classificationlabels": "sensitivity label",
    "digital-signature-origin": "digital signature",
    "featurepropertybag": "checkboxes in cells",
    "rdrichvalue": "pictures and data types in cells",
    "sheetmetadata": "metadata of cells, such as dynamic arrays",
}
"""Files inside a workbook that have no name, by the last word of their content type."""

_CONTROL = "form control"
_VML_TYPE = re.compile(rb"""ObjectType=["'](\w+)""")
"""The type of an object. The file is not always XML: other programs write HTML into it."""

_SHEETS = ("worksheet", "chartsheet", "dialogsheet")
_ID = f"{{{REL_NS}}}id"

Part = tuple[str, str]
"""The kind of a part and its name, which can be empty."""

Node = Any
"""An element of XML."""


def find_parts(content: bytes) -> Parts:
    """Return the parts of a workbook that openpyxl possibly does not keep.

    Raises:
        Exception: the workbook is damaged.
    """
    found: Parts = {}
    with ZipFile(BytesIO(content)) as archive:
        for kind, name in _files(archive):
            found.setdefault((WORKBOOK, kind), []).append(name)
        (workbook,) = _related(archive, "", "officeDocument")
        formatted: set[int] = set()
        for strings in _related(archive, workbook.Target, "sharedStrings"):
            texts = fromstring(archive.read(strings.Target))
            formatted.update(number for number, text in enumerate(texts) if _has_formats(text))
        sheets = {sheet.id: sheet.Target for sheet in _related(archive, workbook.Target, *_SHEETS)}
        for sheet in fromstring(archive.read(workbook.Target)).iter():
            path = sheets.get(sheet.get(_ID))
            if _tag(sheet) != "sheet" or path is None:
                continue
            parts = list(_of_sheet(fromstring(archive.read(path)), formatted))
            for drawing in _related(archive, path, "drawing"):
                parts += _of_drawing(fromstring(archive.read(drawing.Target)))
            if all(kind != _CONTROL for kind, _ in parts):
                for drawing in _related(archive, path, "vmlDrawing"):
                    parts += _of_vml(archive.read(drawing.Target))
            for kind, name in parts:
                found.setdefault((sheet.get("name", ""), kind), []).append(name)
    return found


def _files(archive: ZipFile) -> Iterator[Part]:
    """Yield the kinds of files that openpyxl does not keep, by their content types.

    A type is that of one file, or of all files with an extension.
    """
    by_name, by_extension = {}, {}
    for item in fromstring(archive.read("[Content_Types].xml")):
        word = item.get("ContentType", "").casefold().partition("+")[0].rpartition(".")[2]
        if _tag(item) == "Override":
            by_name[item.get("PartName", "").removeprefix("/").casefold()] = word
        else:
            by_extension[item.get("Extension", "").casefold()] = word
    files = [name.casefold() for name in archive.namelist()]
    words = {by_name.get(name) or by_extension.get(name.rpartition(".")[2]) for name in files}
    for word, kind in _FILES.items():
        if word in words:
            yield kind, ""


def _of_sheet(sheet: Node, formatted: Collection[int]) -> Iterator[Part]:
    """Yield the parts of a sheet. ``formatted`` are the numbers of the texts with more than one format."""
    for item in _children(sheet):
        tag = _tag(item)
        if tag in _ELEMENTS:
            yield _ELEMENTS[tag], ""
        elif tag == "sheetData":
            for cell in item.iter():
                if _tag(cell) == "c" and _is_formatted(cell, formatted):
                    yield "text with more than one format", cell.get("r", "")
        elif tag in ("controls", "oleObjects"):
            for control in _children(item):
                if tag == "controls":
                    yield _CONTROL, control.get("name", "")
                else:
                    yield "embedded object", control.get("progId", "")
        elif tag == "extLst":
            for content in (content for extension in item for content in extension):
                yield from _of_extension(content)


def _of_extension(content: Node) -> Iterator[Part]:
    tag = _tag(content)
    if tag in _HARMLESS_EXTENSIONS:
        return
    if tag not in _EXTENSIONS:
        yield "extension", tag
        return
    kind, element = _EXTENSIONS[tag]
    for item in content.iter():
        if _tag(item) == element:
            yield kind, " ".join(cells.text or "" for cells in item if _tag(cells) == "sqref")


def _of_drawing(drawing: Node) -> Iterator[Part]:
    for anchor in _children(drawing):
        for item in _children(anchor):
            kind = _kind_of(item)
            if kind:
                yield kind, _first(item, "cNvPr", "name")


def _of_vml(drawing: bytes) -> Iterator[Part]:
    """Yield the form controls of Excel 2007, by their types. Comments are drawn in such files, too."""
    for found in _VML_TYPE.finditer(drawing):
        if found[1] not in (b"Note", b"Pict"):
            yield _CONTROL, found[1].decode()


def _kind_of(item: Node) -> str:
    """Return the kind of an object of a drawing; it is empty for the place of the object."""
    tag = _tag(item)
    if tag == "sp":
        if any(_tag(inner) == "compatExt" for inner in item.iter()):
            return ""  # it stands for a form control, which the sheet names
        is_box = any(inner.get("txBox") in ("1", "true") for inner in item.iter())
        return "text box" if is_box else "shape"
    if tag == "graphicFrame":
        word = _first(item, "graphicData", "uri").rpartition("/")[2]
        return _FRAMES.get(word, word)
    return _OBJECTS.get(tag, "")


def _first(node: Node, tag: str, attribute: str) -> str:
    """Return an attribute of the first element ``tag`` inside a node, or an empty text."""
    return next((str(inner.get(attribute, "")) for inner in node.iter() if _tag(inner) == tag), "")


def _is_formatted(cell: Node, formatted: Collection[int]) -> bool:
    if cell.get("t") == "s":
        return any(_tag(value) == "v" and int(value.text or -1) in formatted for value in cell)
    return any(_tag(value) == "is" and _has_formats(value) for value in cell)


def _has_formats(text: Node) -> bool:
    runs = [run for run in text if _tag(run) == "r"]
    return len(runs) > 1 and any(_tag(part) == "rPr" for run in runs for part in run)


def _children(node: Node) -> Iterator[Node]:
    """Yield the children of a node. Of alternatives for older and newer versions of Excel it is the newer."""
    for child in node:
        if _tag(child) == "AlternateContent":
            for choice in child:
                if _tag(choice) == "Choice":
                    yield from _children(choice)
                    break
        else:
            yield child


def _tag(node: Node) -> str:
    """Return the name of an element without its namespace; of a comment it is empty."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _related(archive: ZipFile, path: str, *kinds: str) -> list[Relationship]:
    """Return what the file ``path`` refers to, where the last word of the relation's type is in ``kinds``."""
    relations: str = get_rels_path(path)  # type: ignore[no-untyped-call]
    if relations not in archive.namelist():
        return []
    found = get_dependents(archive, relations)
    return [item for item in found if item.Type.rpartition("/")[2] in kinds]
