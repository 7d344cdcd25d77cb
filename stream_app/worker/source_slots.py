"""Decides how many jobs of which datasets a worker claims, so that no source takes the slots of others."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from stream_app.datasets.bundles import sources_of
from stream_app.datasets.models import Dataset
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.source import Source

TRIAL_SECONDS = 10.0
"""Seconds between two claims of a job of a source that does not answer.

Usually the monitor of the sources finds out that a source answers again. The trials let a job fail that has
waited for too long.
"""


@dataclass(frozen=True, slots=True)
class Claimable:
    """What a worker can claim at once.

    Attributes:
        limit: how many jobs and parts.
        held_back: the datasets whose jobs are not claimed.
        away: the datasets whose source does not answer.
    """

    limit: int
    held_back: tuple[str, ...] = ()
    away: tuple[str, ...] = ()


class SourceSlots:
    """Limits the claims of each source by its connections, and those of a source that does not answer."""

    def __init__(self, sources: SourceFinder, datasets: Mapping[str, Dataset], slots: int) -> None:
        """Create the limits. ``slots`` is how many exports the worker runs at a time."""
        self._sources = sources
        self._datasets = datasets
        self._slots = slots
        self._trials: dict[str, float] = {}

    def claimable(self, free: int, running: Iterable[str]) -> Claimable:
        """Return what can be claimed for ``free`` slots while exports of the datasets ``running`` run here.

        A worker claims several times to fill its slots if a source has fewer connections than free slots.
        """
        used = self._used(running)
        limit, full, away = free, set(), set()
        for source in self._sources.each():
            if source.pool.unavailable_since is not None:
                away.add(source.name)
            room = self._room(source, used[source.name])
            if room > 0:
                limit = min(limit, room)
            else:
                full.add(source.name)
        return Claimable(limit, self._datasets_of(full), self._datasets_of(away))

    def have_room(self, name: str, running: Iterable[str]) -> bool:
        """Return whether a job of the dataset ``name`` can be claimed while those of ``running`` run here.

        It is False while any source does not answer, and for a dataset that is not known here: such jobs
        need what :meth:`claimable` decides.
        """
        if name not in self._datasets or any(
            source.pool.unavailable_since is not None for source in self._sources.each()
        ):
            return False
        used = self._used(running)
        needed = sources_of(self._datasets[name])
        return all(
            self._room(source, used[source.name]) > 0
            for source in self._sources.each()
            if source.name in needed
        )

    def _used(self, running: Iterable[str]) -> Counter[str]:
        """Return how many exports of the datasets ``running`` use each source."""
        known = (self._datasets[name] for name in running if name in self._datasets)
        return Counter(source for dataset in known for source in sources_of(dataset))

    def _datasets_of(self, sources: Collection[str]) -> tuple[str, ...]:
        if not sources:
            return ()
        return tuple(
            name for name, dataset in self._datasets.items() if not sources_of(dataset).isdisjoint(sources)
        )

    def _room(self, source: Source, used: int) -> int:
        if source.pool.unavailable_since is None:
            self._trials.pop(source.name, None)
            return min(self._slots, source.export_limit or self._slots) - used
        now = time.monotonic()
        if used or now < self._trials.setdefault(source.name, now + TRIAL_SECONDS):
            return 0
        self._trials[source.name] = now + TRIAL_SECONDS
        return 1
