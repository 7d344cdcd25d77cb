"""Requests and faults of a scenario and their times, computed from a seed. Does no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

from streaming_exporter.events import ExportRequest, Options
from tests.chaos.items import COLUMNS, NARROW, ROWS, SLOW_ROWS_A_SECOND, USERS

TWICE_EVERY = 10
CANCELLED_EVERY = 15
PARTS = ("kafka", "postgres", "s3")
HOPELESS_EVERY = 25


@dataclass(frozen=True)
class PlannedJob:
    """One job and its faults. Times are seconds from the start."""

    at: float
    job_id: UUID
    request: ExportRequest
    last: int
    """The highest id in the export."""
    twice: bool = False
    hopeless: bool = False
    """Whether it names a column that does not exist, so that it must fail."""
    cancelled_at: float | None = None

    @property
    def columns(self) -> Sequence[str]:
        return self.request.columns or COLUMNS

    @property
    def owner(self) -> str | None:
        return self.request.user_id if self.request.scope == "own" else None

    @property
    def endings(self) -> frozenset[str]:
        """Return the states in which the job can end; a late cancellation expires the file."""
        ending = "failed" if self.hopeless else "completed"
        if self.cancelled_at is None:
            return frozenset({ending})
        if self.cancelled_at < self.at:
            return frozenset({"cancelled"})
        return frozenset({"cancelled", "failed" if self.hopeless else "expired"})


@dataclass(frozen=True)
class Fault:
    """A fault that begins ``at`` seconds after the start."""

    at: float
    kind: str
    """``kill``, ``freeze``, ``rebalance``, a part of the stack, or ``frozen`` and a part of the stack."""
    worker: int = 0
    gently: bool = False
    down: float = 0
    """Seconds for which the part is stopped or frozen."""


@dataclass(frozen=True)
class Plan:
    """The plan of one scenario."""

    seed: int
    orders: Sequence[PlannedJob]
    faults: Sequence[Fault]


def plan(seed: int, *, jobs: int, seconds: float, rounds: int, workers: int, outage: float = 10) -> Plan:
    """Plan ``jobs`` jobs within ``seconds``. Kafka and PostgreSQL are restarted ``rounds`` times.

    The same number of times a worker is frozen for longer than a lease (R1), and a part of the stack for some
    seconds. ``outage`` is the outage of the object store in seconds.
    """
    random = Random(seed)
    orders = [_order(random, number, seconds * number / jobs) for number in range(jobs)]
    return Plan(seed, orders, _faults(random, seconds, rounds, workers, outage))


def _order(random: Random, number: int, at: float) -> PlannedJob:
    hopeless = number % HOPELESS_EVERY == HOPELESS_EVERY - 1
    request, last = _request(random)
    if hopeless:
        request = request.model_copy(update={"columns": ["id", "nonsense"]})
    cancelled_at = None
    if number % CANCELLED_EVERY == CANCELLED_EVERY - 1:
        cancelled_at = at + (random.uniform(0.2, 4) if random.random() < 0.6 else -0.3)
    return PlannedJob(
        at,
        UUID(int=random.getrandbits(128), version=4),
        request,
        last,
        twice=number % TWICE_EVERY == TWICE_EVERY - 1,
        hopeless=hopeless,
        cancelled_at=cancelled_at,
    )


def _request(random: Random) -> tuple[ExportRequest, int]:
    """Return a random request: 40 % are small, 40 % slow, 10 % large, 10 % one page."""
    user = f"user-{random.randint(1, USERS)}"
    size = random.choices(("small", "slow", "large", "page"), (4, 4, 1, 1))[0]
    dataset, scope, columns = "items", "own", None
    match size:
        case "small":
            output = random.choice(("csv", "json", "ndjson", "excel", "parquet"))
            last = random.randint(2_000, 20_000)
        case "slow":
            dataset, scope, output = "slow", "all", random.choice(("csv", "ndjson", "parquet"))
            last = int(SLOW_ROWS_A_SECOND * random.uniform(1, 6))
        case "large":
            scope, output, last = "all", random.choice(("csv", "json", "ndjson")), ROWS
        case _:
            scope, output, columns, last = "all", "pdf", list(NARROW), random.randint(50, 300)
    compression = random.choice(("none", "gzip", "zstd")) if output in ("csv", "json", "ndjson") else "none"
    fields: dict[str, Any] = {"columns": columns} if columns else {}
    request = ExportRequest(
        user_id=user,
        export_type=dataset,
        format=output,
        filters={"id": {"lte": last}},
        scope=scope,
        options=Options(compression=compression),
        priority=random.choice(("high", "normal", "low")),
        **fields,
    )
    return request, last


def _faults(random: Random, seconds: float, rounds: int, workers: int, outage: float) -> list[Fault]:
    faults = []
    at = random.uniform(2, 4)
    while at < seconds:
        faults.append(Fault(at, "kill", worker=random.randrange(workers)))
        at += random.uniform(3, 6)
    for part in ("kafka", "postgres"):
        for turn in range(rounds):
            at = seconds * (turn + random.uniform(0.2, 0.9)) / rounds
            faults.append(Fault(at, part, gently=random.random() < 0.5, down=random.uniform(0, 3)))
    faults.append(Fault(seconds * random.uniform(0.2, 0.6), "s3", down=outage))
    for turn in range(rounds):
        at = seconds * (turn + random.uniform(0.1, 0.9)) / rounds
        faults.append(Fault(at, "rebalance", worker=random.randrange(workers)))
        at = seconds * (turn + random.uniform(0.1, 0.9)) / rounds
        faults.append(Fault(at, "freeze", worker=random.randrange(workers), down=random.uniform(4, 8)))
        at = seconds * (turn + random.uniform(0.1, 0.9)) / rounds
        faults.append(Fault(at, f"frozen {random.choice(PARTS)}", down=random.uniform(2, 5)))
    return sorted(faults, key=lambda fault: fault.at)
