"""Operators read which parts of an Excel template its exports lack, before a reader of the exports does."""

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from openpyxl import Workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image
from openpyxl.worksheet.datavalidation import DataValidation
from PIL import Image as Picture
from structlog.testing import capture_logs

from stream_app.datasets import template_losses as losses
from stream_app.datasets.models import Dataset
from stream_app.datasets.template_losses import NAMED, lost_parts
from stream_app.doctor.datasets import check_datasets
from stream_app.doctor.findings import State
from stream_app.exports.live_datasets import datasets_watcher, open_datasets
from stream_app.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:openpyxl.worksheet._reader")

DRAWING, SHEET, TYPES = "xl/drawings/drawing1.xml", "xl/worksheets/sheet1.xml", "[Content_Types].xml"
COMPATIBLE = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
OF_2010 = (
    'xmlns:x14="http://schemas.microsoft.com/office/spreadsheetml/2009/9/main" '
    'xmlns:xm="http://schemas.microsoft.com/office/excel/2006/main"'
)


@cache
def template() -> bytes:
    """Return a workbook with parts that openpyxl keeps: a chart, two pictures, a comment, a validation."""
    book: Any = Workbook()
    sheet = book.active
    sheet.title = "Orders"
    sheet["A1"] = "id"
    sheet["A1"].comment = Comment("The number", "Team")
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=2))
    sheet.add_chart(chart, "D4")
    for cell in ("F1", "H1"):
        file = io.BytesIO()
        Picture.new("RGB", (4, 4)).save(file, "PNG")
        sheet.add_image(Image(file), cell)
    validation = DataValidation("list", formula1='"a,b"')
    validation.add("B2:B9")
    sheet.add_data_validation(validation)
    return saved(book)


def saved(book: Any) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def with_added(content: bytes, added: Mapping[str, str]) -> bytes:
    """Return the workbook with XML at the end of some of its files. Files that it does not have are new."""
    file = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as source, ZipFile(file, "w") as target:
        for name in source.namelist():
            head, end, root = source.read(name).rpartition(b"</")
            target.writestr(name, head + added.get(name, "").encode() + end + root)
        for name in added.keys() - set(source.namelist()):
            target.writestr(name, added[name])
    return file.getvalue()


def anchored(item: str) -> str:
    place = "<col>1</col><colOff>0</colOff><row>1</row><rowOff>0</rowOff>"
    return f"<twoCellAnchor><from>{place}</from><to>{place}</to>{item}<clientData/></twoCellAnchor>"


def shape(name: str, properties: str = "<cNvSpPr/>", extension: str = "") -> str:
    return (
        f'<sp macro="" textlink=""><nvSpPr><cNvPr id="9" name="{name}">{extension}</cNvPr>{properties}'
        "</nvSpPr><spPr/></sp>"
    )


def frame(name: str, uri: str) -> str:
    return (
        f'<graphicFrame macro=""><nvGraphicFramePr><cNvPr id="9" name="{name}"/><cNvGraphicFramePr/>'
        '</nvGraphicFramePr><xfrm/><graphic xmlns="http://schemas.openxmlformats.org/drawingml/2006/main">'
        f'<graphicData uri="{uri}"/></graphic></graphicFrame>'
    )


def newer(content: str, older: str) -> str:
    return (
        f'<mc:AlternateContent {COMPATIBLE}><mc:Choice Requires="a14">{content}</mc:Choice>'
        f"<mc:Fallback>{older}</mc:Fallback></mc:AlternateContent>"
    )


def extension(content: str) -> str:
    return f'<extLst><ext uri="{{CCE6A557}}" {OF_2010}>{content}</ext></extLst>'


def file_of_type(name: str, kind: str) -> dict[str, str]:
    return {TYPES: f'<Override PartName="/{name}" ContentType="{kind}"/>', name: "<content/>"}


MICROSOFT = "http://schemas.microsoft.com/office/drawing"
COMPAT_EXT = (
    '<a:extLst xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><a:ext uri="{63B3BB69}">'
    '<a14:compatExt xmlns:a14="http://schemas.microsoft.com/office/drawing/2010/main" spid="_x0000_s1025"/>'
    "</a:ext></a:extLst>"
)
GROUP = (
    '<grpSp><nvGrpSpPr><cNvPr id="9" name="Head"/><cNvGrpSpPr/></nvGrpSpPr><grpSpPr/>'
    + shape("A")
    + "</grpSp>"
)
LINE = '<cxnSp><nvCxnSpPr><cNvPr id="9" name="To"/><cNvCxnSpPr/></nvCxnSpPr><spPr/></cxnSp>'
BUTTON_OF_2007 = '<x:ClientData xmlns:x="urn:schemas-microsoft-com:office:excel" ObjectType="Button"/>'
LOST = [
    ({DRAWING: anchored(shape("Seal", '<cNvSpPr txBox="1"/>'))}, "sheet 'Orders': text box 'Seal'"),
    (
        {DRAWING: anchored(shape("Oval 1")) + anchored(shape("Star 2"))},
        "sheet 'Orders': shape 'Oval 1', 'Star 2'",
    ),
    (
        {DRAWING: "".join(anchored(shape("Dot")) for _ in range(NAMED + 2))},
        f"sheet 'Orders': shape {', '.join(NAMED * [repr('Dot')])} and 2 more",
    ),
    (
        {DRAWING: anchored(GROUP)},
        "sheet 'Orders': group of shapes 'Head'",
    ),
    (
        {DRAWING: anchored(LINE)},
        "sheet 'Orders': line 'To'",
    ),
    (
        {DRAWING: anchored(newer(frame("Region", f"{MICROSOFT}/2010/slicer"), shape("Region")))},
        "sheet 'Orders': slicer 'Region'",
    ),
    (
        {DRAWING: anchored(newer(frame("When", f"{MICROSOFT}/2012/timeslicer"), shape("")))},
        "sheet 'Orders': timeline 'When'",
    ),
    (
        {DRAWING: anchored(newer(frame("Steps", f"{MICROSOFT}/2014/chartex"), shape("")))},
        "sheet 'Orders': chart of a newer type 'Steps'",
    ),
    (
        {DRAWING: anchored(frame("Team", "http://schemas.openxmlformats.org/drawingml/2006/diagram"))},
        "sheet 'Orders': SmartArt graphic 'Team'",
    ),
    (
        {
            DRAWING: newer(anchored(shape("Button 1", extension=COMPAT_EXT)), ""),
            SHEET: newer(
                "<controls>"
                + newer('<control shapeId="1" name="Button 1"/>', '<control shapeId="1"/>')
                + "</controls>",
                "",
            ),
        },
        "sheet 'Orders': form control 'Button 1'",
    ),
    (
        {"xl/drawings/commentsDrawing1.vml": BUTTON_OF_2007},
        "sheet 'Orders': form control 'Button'",
    ),
    (
        {SHEET: '<oleObjects><oleObject progId="Word.Document.12" shapeId="1"/></oleObjects>'},
        "sheet 'Orders': embedded object 'Word.Document.12'",
    ),
    (
        {
            SHEET: extension(
                '<x14:dataValidations count="1"><x14:dataValidation type="list"><x14:formula1>'
                "<xm:f>Lists!$A$1:$A$3</xm:f></x14:formula1><xm:sqref>C3:C100</xm:sqref>"
                "</x14:dataValidation></x14:dataValidations>"
            )
        },
        "sheet 'Orders': data validation of Excel 2010 'C3:C100'",
    ),
    (
        {
            SHEET: extension(
                "<x14:conditionalFormattings><x14:conditionalFormatting>"
                '<x14:cfRule type="dataBar" id="{A}"/><xm:sqref>D3:D9</xm:sqref>'
                "</x14:conditionalFormatting></x14:conditionalFormattings>"
            )
        },
        "sheet 'Orders': conditional format of Excel 2010 'D3:D9'",
    ),
    (
        {
            SHEET: extension(
                "<x14:sparklineGroups><x14:sparklineGroup><x14:sparklines><x14:sparkline><xm:f>A1:A9</xm:f>"
                "<xm:sqref>E2</xm:sqref></x14:sparkline></x14:sparklines></x14:sparklineGroup>"
                "</x14:sparklineGroups>"
            )
        },
        "sheet 'Orders': sparkline 'E2'",
    ),
    ({SHEET: extension("<x14:later/>")}, "sheet 'Orders': extension 'later'"),
    (
        {SHEET: '<legacyDrawingHF xmlns:r="r" r:id="rId9"/>'},
        "sheet 'Orders': pictures in headers and footers",
    ),
    (file_of_type("xl/vbaProject.bin", "application/vnd.ms-office.vbaProject"), "macros"),
    (
        file_of_type("docMetadata/LabelInfo.xml", "application/vnd.ms-office.classificationlabels+xml"),
        "sensitivity label",
    ),
]


@pytest.mark.parametrize(("added", "expected"), LOST, ids=[expected for _, expected in LOST])
def test_each_part_that_is_lost_is_named(added: Mapping[str, str], expected: str) -> None:
    assert lost_parts(with_added(template(), added)) == [expected]


def test_parts_that_are_kept_are_not_named() -> None:
    ignored = with_added(template(), {SHEET: extension("<x14:ignoredErrors/>")})
    assert lost_parts(template()) == lost_parts(ignored) == []


@pytest.mark.filterwarnings("ignore:DrawingML support is incomplete:UserWarning")
def test_charts_and_pictures_beside_an_object_that_cannot_be_read_are_named() -> None:
    """openpyxl reads a drawing whole or not at all."""
    incomplete = anchored(LINE.replace("<spPr/>", ""))
    assert lost_parts(with_added(template(), {DRAWING: incomplete})) == [
        f"sheet 'Orders': {part}" for part in ("chart 'Chart 1'", "picture 'Image 2', 'Image 3'", "line 'To'")
    ]


@pytest.mark.filterwarnings("ignore:The image .* will be removed:UserWarning")
def test_a_picture_that_cannot_be_read_is_one_of_those_of_its_sheet() -> None:
    file = io.BytesIO()
    with ZipFile(io.BytesIO(template())) as source, ZipFile(file, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"damaged" if name == "xl/media/image2.png" else source.read(name))
    assert lost_parts(file.getvalue()) == ["sheet 'Orders': picture 'Image 2', 'Image 3' (1 of 2)"]


def test_formats_within_a_text_are_named_by_their_cell() -> None:
    assert lost_parts(with_formats()) == ["sheet 'Sheet': text with more than one format 'A1'"]


@pytest.mark.parametrize("content", [b"", b"PK", b"\0" * 100])
def test_a_file_that_is_no_workbook_has_no_parts(content: bytes) -> None:
    assert lost_parts(content) == []


def with_formats() -> bytes:
    book: Any = Workbook()
    book.active["A1"] = CellRichText("all ", TextBlock(InlineFont(b=True), "confidential"))
    book.active["A2"] = "id"
    return saved(book)


async def test_the_doctor_and_the_log_name_them(tmp_path: Path) -> None:
    """After the start of a process, and when the datasets file has changed."""
    (tmp_path / "lossy.xlsx").write_bytes(with_formats())
    (tmp_path / "whole.xlsx").write_bytes(template())
    file = tmp_path / "datasets.toml"
    entries = "".join(
        f'[datasets.{name}]\ntable = "t"\ntemplate = "{name}.xlsx"\n' for name in ("lossy", "whole")
    )
    file.write_text(entries)
    settings = Settings(_env_file=None).model_copy(update={"datasets_file": file})
    parts = ["sheet 'Sheet': text with more than one format 'A1'"]

    (finding,) = (found for found in check_datasets(settings) if found.code)
    assert (finding.state, finding.check) == (State.WARNING, "datasets.lossy.template")
    assert finding.values == {"parts": parts[0]}
    with capture_logs() as while_it_opens:
        datasets = open_datasets(settings)
    assert "dataset.template_parts_lost" not in str(while_it_opens), "a start does not wait for it"
    watcher = datasets_watcher(settings, datasets)
    with capture_logs() as at_start:
        for _ in range(4):  # the second time it is not changing any more
            await watcher.look()
    file.write_text(entries + "max_rows = 9\n")
    with capture_logs() as at_change:
        for _ in range(4):
            await watcher.look()
    for logged in (at_start, at_change):
        (line,) = (one for one in logged if one["event"] == "dataset.template_parts_lost")
        assert (line["dataset"], line["parts"], line["log_level"]) == ("lossy", parts, "warning")


def test_a_template_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds if it has many cells, and each dataset and each check reads it."""
    compared = list[bytes]()

    def compare(content: bytes) -> list[str]:
        compared.append(content)
        return ["macros"]

    monkeypatch.setattr(losses, "lost_parts", compare)
    monkeypatch.setattr(losses, "_known", {})
    paths = [tmp_path / f"{name}.xlsx" for name in "abc"]
    for path in paths:
        path.write_bytes(with_formats() if path.name == "c.xlsx" else b"the same")
    datasets = [Dataset(name=path.stem, table="t", template=path) for path in paths]
    for _ in range(2):
        assert [dataset.name for dataset, _ in losses.template_losses(datasets)] == ["a", "b", "c"]
    assert len(compared) == 2
    monkeypatch.setattr(losses, "KEPT_RESULTS", 1)
    assert len(list(losses.template_losses(datasets))) == 3
    assert len(compared) == 2, "it is known already"


def test_processes_leave_large_templates_to_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lossy.xlsx"
    path.write_bytes(with_formats())
    datasets = [Dataset(name="a", table="t", template=path)]
    with ZipFile(path) as archive:
        size = sum(item.file_size for item in archive.infolist() if item.filename.endswith(".xml"))
    for limit, lines in ((size, 1), (size - 1, 0)):
        monkeypatch.setattr(losses, "LOGGED_XML_BYTES", limit)
        with capture_logs() as logged:
            losses.log_template_losses(datasets)
        assert len(logged) == lines
    assert len(list(losses.template_losses(datasets))) == 1
