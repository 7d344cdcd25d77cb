"""What becomes of attempts and their files while parts of the service are away."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.events import Event, LifecycleData
from stream_app.exports.inventory import object_key
from stream_app.exports.storage import Storage
from stream_app.jobs.states import Status
from stream_app.jobs.store import Claim
from stream_app.jobs.tending import Caretaker
from tests.integration.jobs.jobs import Jobs, completed


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def published() -> list[Event]:
    return []


@pytest.fixture
def caretaker(jobs: Jobs, storage: Storage, published: list[Event]) -> Caretaker:
    async def emit(event: Event) -> None:
        published.append(event)

    return Caretaker(jobs.store, storage, emit)


def put(storage: Storage, claim: Claim) -> LifecycleData:
    """The file of an attempt, and the outcome that names it."""
    key = object_key(claim.job_id, claim.attempt, "f")
    storage.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    return completed(claim).model_copy(update={"key": key})


async def test_a_seal_that_is_repeated_after_its_outcome_was_applied_is_still_ours(jobs: Jobs) -> None:
    await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.store.seal(claim, completed(claim)) is True
    assert await jobs.apply(completed(claim)) is True
    assert await jobs.store.seal(claim, completed(claim)) is True
    assert await jobs.store.seal(claim, claim.lifecycle(Status.FAILED)) is False


async def test_no_sweep_removes_the_file_of_a_completed_job(
    jobs: Jobs, storage: Storage, caretaker: Caretaker
) -> None:
    await jobs.admit()
    (lost,) = await jobs.store.claim("w1", 1)
    await jobs.expire_leases()
    (claim,) = await jobs.store.claim("w2", 1)
    left, outcome = put(storage, lost), put(storage, claim)
    await jobs.store.seal(claim, outcome)
    await caretaker.sweep(claim.job_id, before=claim.attempt + 1)
    assert storage.exists(str(outcome.key))
    assert not storage.exists(str(left.key))
    await jobs.apply(outcome)
    await caretaker.sweep(claim.job_id, before=claim.attempt + 1)
    assert storage.exists(str(outcome.key))
