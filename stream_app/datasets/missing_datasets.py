"""Reports that there are no datasets, so that nothing can be exported."""

from collections.abc import Collection
from pathlib import Path

import structlog

from stream_app.messages.catalogue import DEFAULT, text

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


def log_missing_datasets(datasets: Collection[str], path: Path | None) -> None:
    """Log a line if there are no datasets, when a process starts."""
    if (reason := missing_datasets(datasets, path)) is not None:
        log.error(
            "dataset.not_configured", reason=reason, advice=text(DEFAULT, "findings.no_datasets.advice")
        )
