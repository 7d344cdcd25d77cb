"""Reports that there are no datasets, so that nothing can be exported."""

from collections.abc import Collection
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def missing_datasets(datasets: Collection[str], path: Path | None) -> str | None:
    """Return why there are no datasets, for operators; ``None`` if there are some.

    Args:
        datasets: the names of the datasets.
        path: the datasets file.
    """
    if datasets:
        return None
    if path is not None:
        return f"nothing can be exported: {path} has no table [datasets.NAME]"
    return (
        "nothing can be exported: EXPORTER_DATASETS_FILE is not set, and no dataset is built in; "
        "version 0.1 had enrollments, proofs and ledger"
    )


ADVICE = (
    "set EXPORTER_DATASETS_FILE on every worker and API to a file with a table [datasets.NAME] for each "
    "table or query; dev/datasets/datasets.toml of the source has those that were built in"
)
"""What operators do then."""


def log_missing_datasets(datasets: Collection[str], path: Path | None) -> None:
    """Log a line if there are no datasets, when a process starts."""
    if (reason := missing_datasets(datasets, path)) is not None:
        log.error("dataset.not_configured", reason=reason, advice=ADVICE)
