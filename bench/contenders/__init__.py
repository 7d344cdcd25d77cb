"""The contenders. Each module has one function, ``run(context)``, that makes the whole export."""

from collections.abc import Iterator
from dataclasses import dataclass

from stream_app.exports.formats.registry import FORMATS

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to write a format. It is not measured with more than ``most_rows`` rows."""

    format: str
    name: str
    module: str
    most_rows: int | None = None


_PEERS = (
    Contender("csv", "fetch all, csv.DictWriter", "csv_dict_writer", 1_000_000),
    Contender("csv", "psql COPY piped into S3", "psql_pipe"),
    Contender("csv", "DuckDB to S3", "duckdb_scanner"),
    Contender("json", "fetch all, json.dumps", "json_dumps", 1_000_000),
    Contender("json", "DuckDB to S3", "duckdb_scanner"),
    Contender("excel", "openpyxl, cells", "openpyxl_cells", 100_000),
    Contender("excel", "openpyxl, write-only", "openpyxl_write_only", 1_000_000),
    Contender("excel", "XlsxWriter, constant memory", "xlsxwriter_constant", 1_000_000),
    Contender("excel", "rustpy-xlsxwriter", "rust_xlsx", 1_000_000),
    Contender("pdf", "reportlab, one Table", "platypus_table", 10_000),
    Contender("pdf", "reportlab, one Table that wraps", "platypus_paragraphs", 10_000),
    Contender("pdf", "fpdf2", "fpdf2_table", 1_000),
    Contender("parquet", "DuckDB to S3", "duckdb_scanner"),
)


def contenders(formats: set[str] | None = None) -> Iterator[Contender]:
    """Return this project and then its peers, for each format in ``formats`` (default: all)."""
    for name in FORMATS:
        if formats is None or name in formats:
            yield Contender(name, OURS, OURS)
            yield from (peer for peer in _PEERS if peer.format == name)
