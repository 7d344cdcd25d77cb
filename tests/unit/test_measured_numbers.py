"""The numbers in the guides are those of the reports that ``make bench`` has written."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = (ROOT / "bench" / "RESULTS.md").read_text("utf-8")
JOBS = (ROOT / "bench" / "jobs" / "RESULTS.md").read_text("utf-8")
COMPARISON = (ROOT / "docs" / "comparison.md").read_text("utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
SCALING = (ROOT / "docs" / "scaling.md").read_text("utf-8")

MILLION = 1_000_000
CONTENDERS = {
    "this service": "ours",
    "fetch all": "fetch all",
    "psql `COPY`": "psql COPY",
    "DuckDB": "DuckDB",
}
"""The heading of a column in the guide, and the beginning of the contender's name in the report."""


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table_after(text: str, words: str) -> list[dict[str, str]]:
    """Return the rows of the first table after ``words``, by the names of its columns."""
    _, found, rest = text.partition(words)
    assert found, words
    lines = rest[rest.index("\n|") + 1 :].partition("\n\n")[0].strip().splitlines()
    return [dict(zip(cells(lines[0]), cells(line), strict=True)) for line in lines[2:]]


def measured(kind: str, contender: str, rows: int = MILLION) -> dict[str, str]:
    """Return the line of the report about a contender, such as ``csv, short rows`` of ``DuckDB``."""
    (line,) = (
        row
        for row in table_after(REPORT, f"\n## {kind}\n")
        if row["rows"] == f"{rows:,}" and row["contender"].strip("*").startswith(contender)
    )
    return line


def number(cell: str) -> float:
    return float(cell.split()[0].replace(",", ""))


@pytest.mark.parametrize(
    ("words", "suffix"), [("One million rows of ten columns", ""), ("These rows are long", ", short rows")]
)
def test_times_and_memory_in_the_comparison_are_those_of_the_report(words: str, suffix: str) -> None:
    compared = 0
    for row in table_after(COMPARISON, words):
        kind, _, what = row.pop("format").partition(", ")
        for heading, cell in row.items():
            if cell:
                line = measured(kind.lower() + suffix, CONTENDERS[heading])
                assert cell == line[what.split()[0]], (kind, heading)
                compared += 1
    assert compared >= 7


def test_small_exports_in_the_comparison_are_those_of_the_report() -> None:
    report = table_after(JOBS, "# Small exports\n")
    guide = table_after(COMPARISON, "Small exports, ")
    assert [list(row.values())[1:] for row in guide] == [
        [row["p50"], row["p99"], row["jobs a second"]] for row in report
    ]


def test_missed_targets_in_the_comparison_are_as_many_as_in_the_report() -> None:
    reached = [row["reached"] for row in table_after(REPORT, "## What it should reach\n")]
    missed, all_of_them = reached.count("**no**"), len(reached) - reached.count("not measured")
    assert f"Of {all_of_them} targets, {missed} were not reached" in COMPARISON


@pytest.mark.parametrize("row", table_after(OPERATIONS, "\n## Sizing\n"), ids=lambda row: row["format"])
def test_sizes_in_the_manual_are_those_of_the_report(row: dict[str, str]) -> None:
    """A PDF is measured with a tenth of the rows; its guide says so."""
    name = row["format"].strip("`")
    rows = 100_000 if name == "pdf" else MILLION
    line = measured(name, "ours", rows)
    rate, speed = number(row["rows a second"]), rows / number(line["time"])
    assert rate == pytest.approx(speed, rel=0.005)
    assert number(row["worker's processor time for 1M rows"]) == pytest.approx(
        number(line["CPU"]) * MILLION / rows
    )
    assert row["memory above idle"].startswith(line["memory"])
    assert number(row["file"]) == pytest.approx(number(line["file"]) * MILLION / rows, abs=0.5)


def test_processor_time_of_a_row_is_that_of_the_report() -> None:
    (line,) = (row for row in table_after(SCALING, "\n## What a unit costs\n") if row["part"] == "worker")
    found = re.findall(r"([\d.]+) µs (?:of a core )?\(`(\w+)`\)", line["of a row of a large one"])
    assert {name for _, name in found} == {"csv", "parquet", "excel", "pdf"}
    for microseconds, name in found:
        rows = 100_000 if name == "pdf" else MILLION
        assert float(microseconds) == pytest.approx(number(measured(name, "ours", rows)["CPU"]) / rows * 1e6)
