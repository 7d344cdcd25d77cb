"""The measurements, and the figures computed from them. Does no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.contenders import OURS, Contender
from bench.kinds import Kind
from bench.measure import Outcome


@dataclass(slots=True)
class Result:
    """One contender at one size. Each figure is the median of its rounds; the stall is the longest one."""

    contender: Contender
    rows: int
    kind: Kind = Kind.LEDGER
    outcomes: list[Outcome] = field(default_factory=list)
    found_rows: int | None = None
    """The number of rows that a reader found in the file."""

    @property
    def error(self) -> str | None:
        return next((outcome.error for outcome in self.outcomes if outcome.error), None)

    @property
    def seconds(self) -> float:
        return median(outcome.seconds for outcome in self.outcomes)

    @property
    def cpu(self) -> float:
        return median(outcome.cpu for outcome in self.outcomes)

    @property
    def memory(self) -> float:
        return median(outcome.memory for outcome in self.outcomes)

    @property
    def size(self) -> int:
        return self.outcomes[0].size

    @property
    def stall(self) -> float | None:
        return max((outcome.stall for outcome in self.outcomes if outcome.stall is not None), default=None)


@dataclass(frozen=True, slots=True)
class Results:
    """All results of one run, in the order of the plan."""

    all: Sequence[Result]

    def find(self, output: str, rows: int, name: str = OURS, kind: Kind = Kind.LEDGER) -> Result | None:
        """Return the result of one contender, or ``None`` if it was not measured or failed."""
        result = self._find(output, rows, name, kind)
        return result if result and result.error is None else None

    def _find(self, output: str, rows: int, name: str, kind: Kind) -> Result | None:
        return next(
            (
                result
                for result in self.all
                if (result.contender.format, result.rows, result.contender.name, result.kind)
                == (output, rows, name, kind)
                and result.outcomes
            ),
            None,
        )

    def times(self, output: str, rows: int, peer: str, kind: Kind = Kind.LEDGER) -> float | None:
        """Return our time as a share of the peer's time.

        If the peer was stopped, the result is the share of the time until then, which is an upper limit.
        """
        ours, theirs = self.find(output, rows, kind=kind), self._find(output, rows, peer, kind)
        return ours.seconds / theirs.seconds if ours and theirs and theirs.seconds else None
