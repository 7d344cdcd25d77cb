"""Takes changes of the datasets file without a restart."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from stream_app.datasets.file import DatasetsFile, DatasetsFileError, datasets_files, load_datasets
from stream_app.datasets.missing_datasets import log_missing_datasets
from stream_app.datasets.registry import Datasets
from stream_app.datasets.template_losses import log_template_losses
from stream_app.observability import metrics
from stream_app.periodic import repeat

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
"""Seconds between two looks at the file. A change is taken when two looks in a row have seen it."""

RETRY_SECONDS = 30.0
"""Seconds until a file that could not be used is tried again: what was missing can be there now."""

Fingerprint = tuple[tuple[str, str], ...]
"""The name and the hash of the content of each file."""


class DatasetsWatcher:
    """Reads the datasets file again after each change, and replaces all datasets at once if it is right.

    It compares contents, which works with volumes of Kubernetes, where a link is replaced, and with editors.
    A file with a fault changes nothing: the service uses the last one that was right.
    """

    def __init__(
        self,
        path: Path | None,
        datasets: Datasets,
        *,
        replace: Sequence[Callable[[DatasetsFile], object]] = (),
        poll: float = POLL_SECONDS,
    ) -> None:
        """Watch ``path``, the file or the folder that ``datasets`` were read from.

        Args:
            path: the path; ``None`` if there is no file.
            datasets: what is replaced.
            replace: called with the new content before. A :class:`DatasetsFileError` of the first one refuses
                the file.
            poll: seconds between two looks.
        """
        self._path = path
        self._datasets = datasets
        self._replace = replace
        self._poll = poll
        self._seen: Fingerprint | None = None
        self._used: Fingerprint | None = None  # unknown: the file can have changed since it was read
        self._failed: tuple[Fingerprint, float] | None = None
        self._has_compared = False
        self.loaded_at = datetime.now(UTC)
        """When the datasets in use were read."""
        self.problem: str | None = None
        """Why the file cannot be used; ``None`` if it is in use."""
        metrics.DATASETS_LOADED.set_to_current_time()
        metrics.DATASETS_RELOAD_FAILED.set(0)

    async def run(self) -> None:
        """Watch the file, until it is cancelled."""
        await repeat("datasets_file", self.look, self._poll)

    async def look(self) -> None:
        """Look at the file, and read it if it has changed and is not changing any more."""
        if self._path is None:
            return
        seen = await asyncio.to_thread(fingerprint, self._path)
        is_settled, self._seen = seen == self._seen, seen
        if not is_settled:
            return
        if seen == self._used:
            self._note(None)
        elif self._failed is None or self._failed[0] != seen or time.monotonic() > self._failed[1]:
            await self._reload(self._path, seen)

    async def _reload(self, path: Path, seen: Fingerprint) -> None:
        try:
            content = await asyncio.to_thread(load_datasets, path)
            if content != self._datasets.content:
                self._take(content)
                self._has_compared = False
        except DatasetsFileError as error:
            self._failed = seen, time.monotonic() + RETRY_SECONDS
            self._note(str(error))
            return
        except Exception as error:  # whatever the file has, operators must see that it is not in use
            log.exception("datasets_file.reload_crashed")
            self._failed = seen, time.monotonic() + RETRY_SECONDS
            self._note(f"EXPORTER_DATASETS_FILE={path}: {type(error).__name__}: {error}")
            return
        self._used, self._failed = seen, None
        self._note(None)
        if not self._has_compared:
            # Not at the start of a process, which does not have to wait for it.
            self._has_compared = True
            await asyncio.to_thread(log_template_losses, content.datasets.values())

    def _take(self, content: DatasetsFile) -> None:
        for replace in self._replace:
            replace(content)
        before, after = self._datasets.content.requestable, content.requestable
        self._datasets.replace(content)
        log_missing_datasets(content.datasets, self._path)
        self.loaded_at = datetime.now(UTC)
        metrics.DATASETS_LOADED.set_to_current_time()
        log.info(
            "datasets_file.reloaded",
            changed=sorted(name for name in {*before, *after} if before.get(name) != after.get(name)),
            datasets=len(content.datasets),
            bundles=len(content.bundles),
            sources=sorted(content.sources),
        )

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.error("datasets_file.reload_failed", error=problem)
        self.problem = problem
        metrics.DATASETS_RELOAD_FAILED.set(problem is not None)


def fingerprint(path: Path) -> Fingerprint:
    """Return the content of a file, or of the files of a folder, in short. What cannot be read has none."""
    try:
        return tuple(
            (file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in datasets_files(path)
        )
    except (OSError, DatasetsFileError):
        return ()
