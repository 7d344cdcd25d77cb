"""fpdf2's table."""

import logging

from fpdf import FPDF

from bench.contenders.platypus_table import FONT
from bench.context import Context


def run(context: Context) -> None:
    logging.getLogger("fpdf").setLevel(logging.ERROR)  # it warns of each character that the font lacks
    document = FPDF(orientation="landscape")
    document.add_font("Vera", fname=FONT)
    document.add_font("Vera", style="B", fname=FONT.with_name("VeraBd.ttf"))
    document.set_font("Vera", size=4)
    document.add_page()
    rows = context.fetch_all()
    with document.table() as table:
        table.row([*rows[0].keys()])
        for row in rows:
            table.row([str(value) for value in row.values()])
    with context.file() as path:
        document.output(str(path))
