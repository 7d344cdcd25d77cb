"""Reads the warnings of finished files from the manifests of jobs. Pure."""

from collections.abc import Mapping
from typing import Any


def warnings_of(manifest: Any) -> dict[str, int]:
    """Return the warnings of a job's files: the number of values by the kind of their change.

    Args:
        manifest: the manifest in the job's record, or ``None``.
    """
    found = manifest.get("warnings") if isinstance(manifest, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {str(name): count for name, count in found.items() if isinstance(count, int) and count > 0}
