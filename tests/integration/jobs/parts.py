"""Split jobs with parts, as tests of the part store need them."""

from datetime import UTC, datetime

from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim, PlannedPart
from stream_app.jobs.parts import PartStore

SNAPSHOT = "00000003-0000001B-1"
AS_OF = datetime(2026, 11, 26, tzinfo=UTC)


def planned(count: int) -> list[PlannedPart]:
    return [PlannedPart(number, {"from": number}) for number in range(1, count + 1)]


async def plan(parts: PartStore, claim: Claim, count: int, *, own_snapshots: bool = False) -> bool:
    """Plan ``count`` parts of a claimed job."""
    return await parts.plan(
        claim,
        planned(count),
        folder="folder",
        snapshot=None if own_snapshots else SNAPSHOT,
        as_of=None if own_snapshots else AS_OF,
    )


def part_claims(claims: list[Claim]) -> list[PartClaim]:
    return [claim for claim in claims if isinstance(claim, PartClaim)]


def numbers(claims: list[Claim]) -> list[int]:
    return [claim.number for claim in part_claims(claims)]
