"""The contenders, their sizes, their rounds and their order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.contenders import Contender, contenders
from bench.kinds import Kind
from bench.measure import Outcome
from bench.results import Result

MILLION = 1_000_000
PDF_ROWS = (1_000, 10_000, 100_000)
"""Numbers of rows of PDF files, because a million rows are not printed."""

SHORT_FORMATS = ("csv", "json", "parquet")
"""The formats that are also measured with a million short rows, beside the fastest peers."""

ROUNDS = 3
SLOW_SECONDS = 20.0
"""A contender that takes longer runs once. Beyond a million rows every contender runs once."""

BUDGET_SECONDS = 180.0
"""With up to a million rows, a contender that takes longer is stopped."""


@dataclass(frozen=True, slots=True)
class Heat:
    """Contenders that write the same rows in turn."""

    rows: int
    contenders: Sequence[Contender]
    rounds: int
    kind: Kind = Kind.LEDGER

    @property
    def budget(self) -> float:
        return BUDGET_SECONDS * max(1, self.rows / MILLION)

    def run(self, measure: Callable[[Contender], Outcome]) -> list[Result]:
        """Run all rounds. Contenders take turns, so that a slow moment of the machine affects all of them."""
        results = [Result(contender, self.rows, self.kind) for contender in self.contenders]
        for round_number in range(self.rounds):
            for result in results:
                if round_number == 0 or (result.error is None and result.seconds < SLOW_SECONDS):
                    result.outcomes.append(measure(result.contender))
        return results


def heats(rows: Sequence[int], formats: set[str] | None, kinds: set[Kind], *, quick: bool) -> Iterator[Heat]:
    """Return all measurements to make, format by format, small sizes first."""
    chosen = list(contenders(formats))
    for name in dict.fromkeys(contender.format for contender in chosen):
        of_format = [contender for contender in chosen if contender.format == name]
        if Kind.LEDGER in kinds:
            for size in sorted(PDF_ROWS[: 1 if quick else None] if name == "pdf" else rows):
                taking_part = [item for item in of_format if size <= (item.most_rows or size)]
                yield Heat(size, taking_part, 1 if quick or size > MILLION else ROUNDS)
        if Kind.SHORT in kinds and name in SHORT_FORMATS:
            taking_part = [item for item in of_format if item.most_rows is None]
            yield Heat(max(rows) if quick else MILLION, taking_part, 1 if quick else ROUNDS, Kind.SHORT)
