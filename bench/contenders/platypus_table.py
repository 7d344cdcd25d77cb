"""The obvious way: reportlab's platypus with one Table of all rows."""

from pathlib import Path

import reportlab
from reportlab.lib.pagesizes import A4, landscape
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import SimpleDocTemplate, Table

from bench.context import Context

FONT = Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"


def run(context: Context) -> None:
    rows = context.fetch_all()
    pdfmetrics.registerFont(TTFont("Vera", FONT))
    cells = [list(rows[0].keys()), *([str(value) for value in row.values()] for row in rows)]
    table = Table(cells, repeatRows=1, style=[("FONT", (0, 0), (-1, -1), "Vera", 4)])
    with context.file() as path:
        SimpleDocTemplate(str(path), pagesize=landscape(A4)).build([table])
