"""The numbers in the guides are those of the reports that ``make bench`` has written."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = (ROOT / "bench" / "RESULTS.md").read_text("utf-8")
JOBS = (ROOT / "bench" / "jobs" / "RESULTS.md").read_text("utf-8")
SCALE = (ROOT / "bench" / "scale" / "RESULTS.md").read_text("utf-8")
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


def cost(part: str, column: str) -> str:
    (line,) = (row for row in table_after(SCALING, "\n## What a unit costs\n") if row["part"] == part)
    return line[column]


def ceiling(what: str) -> str:
    (line,) = (row for row in table_after(SCALING, "\n## Ceilings\n") if row["what"] == what)
    return f"{line['formula']} = {line['with the figures above']}"


ROUNDS = table_after(SCALE, "\n## Workers on one machine\n")
"""With 1, 2 and 4 workers. Two columns are named workers; here it is their processor time."""
CLAIMS = {
    (row["users"], row["finished jobs"]): row
    for row in table_after(SCALE, "\n## Claims in PostgreSQL alone\n")
}


@pytest.mark.parametrize(
    ("part", "column"),
    [("PostgreSQL, state and source together", "postgres"), ("Kafka", "kafka"), ("object store", "s3")],
)
def test_processor_time_of_a_small_job_is_that_of_the_report(part: str, column: str) -> None:
    found = sorted(number(row[column]) for row in ROUNDS)
    assert cost(part, "of a small job").startswith(f"{found[0]} to {found[-1]} ms of a core")


def test_small_jobs_in_the_model_are_those_of_the_report() -> None:
    one, two, four = ROUNDS
    alone, shared = number(one["workers"]), number(four["workers"])
    assert cost("worker", "of a small job") == (
        f"{alone:.0f} ms of a core alone, {shared:.0f} where four share two cores"
    )
    assert f"Of their {alone:.0f} ms most" in SCALING
    assert ceiling("all parts on one machine").endswith(
        f"2 ÷ {number(one['CPU of a job']) / 1_000:.4f} = {one['ceiling']} jobs/s; "
        f"measured {one['jobs/s']} with one worker, {two['jobs/s']} with two"
    )
    assert f"C ÷ {alone / 1_000:.4f} = {1_000 / alone:.0f} jobs/s a core" in ceiling("workers")


def test_admission_in_the_model_is_that_of_the_report() -> None:
    admitted = re.findall(r"admits ([\d,]+) requests a second", SCALE)[0]
    milliseconds = 1_000 / number(admitted)
    assert cost("admission", "basis") == f"measured: {admitted} a second by one worker"
    assert cost("admission", "of a small job").startswith(f"{milliseconds:.1f} ms")
    assert ceiling("admission").startswith(f"{admitted} × workers")
    eightfold = re.findall(r"([\d,]+) requests/s with 8 partitions", ceiling("admission"))[0]
    assert number(eightfold) == pytest.approx(8 * number(admitted), rel=0.02)


def test_claims_in_the_model_are_those_of_the_report() -> None:
    few, many = CLAIMS["100", "0"], CLAIMS["5,000", "0"]
    assert cost("a claim, under the lock of claims", "of a small job") == f"{few['p50']} for 4 jobs"
    assert f"{many['p50']} with 5,000 users" in cost("a claim, under the lock of claims", "basis")

    def rates(users: str) -> str:
        found = sorted(row["1 ÷ p50"].removesuffix("/s") for key, row in CLAIMS.items() if key[0] == users)
        return " to ".join(found)

    assert f"{rates('100')} claims/s with 10,000 jobs of 100 users" in ceiling("claims")
    assert f"{rates('5,000')} with those of 5,000" in ceiling("claims")
    later = [row["to none"].split(" and ") for row in CLAIMS.values() if row["finished jobs"] != "0"]
    p50, p99 = (" to ".join(sorted(column)) for column in zip(*later, strict=True))
    words = f"took {p50} times as long as beside none (p50; p99: {p99})"
    assert words in " ".join(SCALING.split())
