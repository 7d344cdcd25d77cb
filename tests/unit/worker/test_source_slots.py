"""No source takes the slots of others: how many jobs a worker claims, and of which datasets."""

import time
from dataclasses import dataclass, field

import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.sources.source import Source
from stream_app.exports.task import ExportProgress
from stream_app.settings import Settings
from stream_app.worker import source_slots
from stream_app.worker.attempt import SLOW_SECONDS
from stream_app.worker.source_slots import Claimable, SourceSlots

SLOTS = 4
DATASETS = {
    name: Dataset(name=name, table="t", source=source)
    for name, source in (("a", "default"), ("b", "default"), ("c", "crm"), ("d", "crm"))
}


@dataclass
class Two:
    """The default source, and ``crm``, where one or two exports can run at a time."""

    default: Source = field(default_factory=lambda: Source(Settings(), connections=9))
    crm: Source = field(default_factory=lambda: Source(Settings(), connections=3, name="crm", export_limit=2))

    def source_for(self, dataset: Dataset) -> Source:
        return self.crm if dataset.source == "crm" else self.default

    def each(self) -> tuple[Source, ...]:
        return self.default, self.crm


@pytest.fixture
def two() -> Two:
    return Two()


@pytest.fixture
def slots(two: Two) -> SourceSlots:
    return SourceSlots(two, DATASETS, SLOTS)


def test_a_single_source_limits_nothing() -> None:
    one = SourceSlots(Source(Settings(), connections=1), {"a": DATASETS["a"]}, SLOTS)
    assert one.claimable(4, []) == Claimable(4)
    assert one.claimable(1, ["a", "a", "a"]) == Claimable(1)


def test_a_source_is_full_at_its_own_limit(slots: SourceSlots) -> None:
    assert slots.claimable(4, []) == Claimable(2)
    assert slots.claimable(3, ["c"]) == Claimable(1)
    assert slots.claimable(2, ["c", "d"]) == Claimable(2, ("c", "d"))
    assert slots.claimable(2, ["unknown", "a", "c", "d"]) == Claimable(2, ("c", "d"))


def test_one_job_has_room_where_a_claim_could_take_it(two: Two, slots: SourceSlots) -> None:
    assert slots.have_room("a", ["c", "d"])
    assert slots.have_room("c", ["c"])
    assert not slots.have_room("c", ["c", "d"])
    assert not slots.have_room("unknown", [])
    two.crm.pool.note_outage()
    assert not slots.have_room("a", []), "only a claim decides about a trial"
    assert "crm" not in slots._trials
    two.crm.pool.note_answer()
    assert slots.have_room("a", [])


def test_exports_that_gave_their_slot_away_still_count_for_their_source(slots: SourceSlots) -> None:
    running = ["a"] * SLOTS
    assert slots.claimable(4, running) == Claimable(2, ("a", "b"))


def test_a_source_that_is_away_is_tried_now_and_then(
    two: Two, slots: SourceSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    two.crm.pool.note_outage()
    away = ("c", "d")
    held = Claimable(4, away, away)
    assert slots.claimable(4, []) == held
    now[0] += source_slots.TRIAL_SECONDS
    assert slots.claimable(4, []) == Claimable(1, (), away), "one job, of any source"
    assert slots.claimable(4, []) == held
    now[0] += source_slots.TRIAL_SECONDS
    assert slots.claimable(3, ["c"]) == Claimable(3, away, away), "one trial at a time"
    two.crm.pool.note_answer()
    assert slots.claimable(4, []) == Claimable(2)


def test_an_export_needs_no_slot_while_its_source_is_slow() -> None:
    progress = ExportProgress()
    assert progress.source_seconds == 0
    progress.waits_since = time.monotonic() - SLOW_SECONDS
    assert progress.source_seconds >= SLOW_SECONDS
