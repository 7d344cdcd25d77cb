"""The targets, and whether this run met them. Does no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.kinds import Kind
from bench.results import Results

MEGABYTE = 2**20
STREAMS = 2
"""Connections that read one export, by default. Each of them can hold 16 MB."""

PSQL, DUCKDB = "psql COPY piped into S3", "DuckDB to S3"
_LEAN = ("csv", "json", "ndjson", "excel")


@dataclass(frozen=True, slots=True)
class Target:
    """A target: ``measured`` is at most ``limit``. ``None`` means that this run did not measure it."""

    what: str
    measured: float | None
    limit: float
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return "yes" if self.measured <= self.limit else "**no**"


def targets(results: Results) -> Iterator[Target]:
    """Return all targets. A share is a share of the peer's time, unless the text names another measure."""
    million = 1_000_000

    def share(
        what: str, output: str, peer: str, limit: float, rows: int = million, kind: Kind = Kind.LEDGER
    ) -> Target:
        measured = results.times(output, rows, peer, kind)
        return Target(f"{what}, share of the time of {peer}", measured, limit)

    for kind in Kind:
        label = f"1M rows of the {kind}" if kind is Kind.LEDGER else f"1M {kind} rows"
        yield share(f"CSV, {label}", "csv", PSQL, 1, kind=kind)
        yield share(f"CSV, {label}", "csv", DUCKDB, 0.75, kind=kind)
        yield share(f"JSON, {label}", "json", DUCKDB, 0.65, kind=kind)
        yield share(f"Parquet, {label}", "parquet", DUCKDB, 0.9, kind=kind)
        yield Target(
            f"Parquet, {label}, share of the memory of {DUCKDB}",
            _memory_share(results, "parquet", million, kind),
            0.4,
        )
    yield share("CSV, 1M rows", "csv", "fetch all, csv.DictWriter", 1 / 7)
    yield share("Excel, 1M rows", "excel", "openpyxl, write-only", 1 / 10)
    yield share("Excel, 1M rows", "excel", "rustpy-xlsxwriter", 1 / 3)
    yield share("PDF, 10k rows", "pdf", "reportlab, one Table", 1 / 15, 10_000)
    yield Target("PDF, time for a row at 100k rows, share of that at 10k", _pdf_growth(results), 1.1)
    for rows, label in ((million, "1M"), (10 * million, "10M")):
        yield Target(
            f"Memory over idle, {label} rows, the most of {', '.join(_LEAN)}",
            _memory(results, rows),
            60 + 16 * STREAMS,
            "MB",
        )
    stalls = [result.stall for result in results.all if result.stall is not None]
    yield Target(
        "The event loop's longest stall, any format", max(stalls) * 1000 if stalls else None, 50, "ms"
    )


def _pdf_growth(results: Results) -> float | None:
    large, small = results.find("pdf", 100_000), results.find("pdf", 10_000)
    return large.seconds / small.seconds / 10 if large and small else None


def _memory_share(results: Results, output: str, rows: int, kind: Kind) -> float | None:
    ours, theirs = results.find(output, rows, kind=kind), results.find(output, rows, DUCKDB, kind)
    return ours.memory / theirs.memory if ours and theirs else None


def _memory(results: Results, rows: int) -> float | None:
    found = [result.memory / MEGABYTE for name in _LEAN if (result := results.find(name, rows))]
    return max(found) if found else None
