"""Writes the measurements as Markdown. Does no I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.scale.claims import Latency, Plan
from bench.scale.workers import Round
from bench.spent import PARTS, cores

_WORKERS = """\
# Growing

Made by `make bench WHAT=scale`; every figure is from one run on one machine with {cores} cores, which
workers, Kafka, PostgreSQL, S3 and the bench itself share.

## Workers on one machine

{jobs:,} CSV exports of {rows:,} rows at once, {slots} at a time in each worker, from the first publication to
the last announcement. All of it is bound by processor time: with C seconds of it a job in all parts together,
N cores do N ÷ C jobs a second, the **ceiling**, however many workers share them. More workers help until
measured ÷ ceiling is near 1; after that, and with parts on machines of their own, each part's time says what
it needs a job. **elsewhere** is what other programs had of the cores meanwhile; it is lost to the ceiling.
"""
_WAL = """
WAL is without images of whole pages, which a server that survives power cuts adds.
"""
_ADMISSION = """\
## Admission

One worker admits {admitted:,.0f} requests a second of a backlog in Kafka, while its exports stand still.
"""
_CLAIMS = """\
## Claims in PostgreSQL alone

`JobQueue.claim` of {slots} jobs while {pending:,} wait, {times:,} times; the jobs of each claim end and their
users ask again before the next. **to none**: p50 and p99 as shares of those beside no finished jobs; flat is
near 1. Claims take one lock, so 1 ÷ p50 bounds how many there are a second. **competing**: claims a second of
{claimers} claimers at once, the other statements included.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """All measurements of one run."""

    rows: int
    slots: int
    rounds: Sequence[Round]
    admitted: float
    plan: Plan
    latencies: Sequence[Latency]

    def markdown(self) -> str:
        """Return the whole report."""
        jobs, times = self.rounds[0].jobs, len(self.latencies[0].seconds)
        plan = self.plan
        return "\n".join(
            (
                _WORKERS.format(cores=cores(), jobs=jobs, rows=self.rows, slots=self.slots),
                *_head("workers", "jobs/s", "ceiling", "÷ ceiling", "CPU of a job", *PARTS, "elsewhere"),
                *map(_rate, self.rounds),
                "",
                *_head("workers", "transactions that write, a job", "WAL a job"),
                *map(_written, self.rounds),
                _WAL,
                _ADMISSION.format(admitted=self.admitted),
                _CLAIMS.format(slots=plan.slots, pending=plan.pending, times=times, claimers=plan.claimers),
                *_head("users", "finished jobs", "p50", "p99", "to none", "1 ÷ p50", "competing"),
                *self._claims(),
                "",
            )
        )

    def _claims(self) -> Iterator[str]:
        for one in self.latencies:
            base = next(other for other in self.latencies if other.users == one.users)
            yield _row(
                f"{one.users:,}",
                f"{one.finished:,}",
                f"{1000 * one.quantile(50):.1f} ms",
                f"{1000 * one.quantile(99):.1f} ms",
                " and ".join(f"{one.quantile(part) / base.quantile(part):.2f}" for part in (50, 99)),
                f"{1 / one.quantile(50):.0f}/s",
                f"{median(one.rates):.0f}/s",
            )


def _rate(one: Round) -> str:
    return _row(
        str(one.workers),
        f"{one.rate:.0f}",
        f"{one.ceiling:.0f}",
        f"{one.rate / one.ceiling:.2f}",
        f"{1000 * one.cpu:.1f} ms",
        *(f"{1000 * one.spent.cpu[part] / one.jobs:.1f} ms" for part in PARTS),
        f"{one.spent.elsewhere:.2f} cores",
    )


def _written(one: Round) -> str:
    return _row(
        str(one.workers),
        f"{one.spent.transactions / one.jobs:.1f}",
        f"{one.spent.wal / one.jobs / 1024:.1f} KiB",
    )


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*["---"] * len(cells))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
