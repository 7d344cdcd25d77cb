"""reportlab's platypus with one Table whose cells wrap, as in our files: each is a Paragraph."""

from html import escape

from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Table

from bench.contenders.platypus_table import FONT
from bench.context import Context


def run(context: Context) -> None:
    rows = context.fetch_all()
    pdfmetrics.registerFont(TTFont("Vera", FONT))
    style = ParagraphStyle("cell", fontName="Vera", fontSize=4, leading=5, splitLongWords=1)
    names = list(rows[0].keys())
    cells = [[Paragraph(escape(str(value)), style) for value in row.values()] for row in rows]
    with context.file() as path:
        document = SimpleDocTemplate(str(path), pagesize=landscape(A4))
        document.build([Table([names, *cells], [document.width / len(names)] * len(names), repeatRows=1)])
