"""Ends what a group of files shares after the last test of the group.

Fixtures of the session last until its end. Services that no test uses any more take processor time of the
other tests until then: an idle broker, a worker and an API together 4 % of a core.
"""

from contextlib import ExitStack

import pytest

_OPEN = pytest.StashKey[dict[str, ExitStack]]()


def after_last_test(config: pytest.Config, group: str) -> ExitStack:
    """Return what is closed after the last test of the files whose paths begin with ``group``."""
    return config.stash.setdefault(_OPEN, {}).setdefault(group, ExitStack())


def close(config: pytest.Config, following: str = "") -> None:
    """Close what belongs to other groups than the test that follows; the latest is closed first."""
    opened = config.stash.get(_OPEN, {})
    with ExitStack() as closing:  # all are closed, also if one of them fails
        for group in [group for group in opened if not following.startswith(group)]:
            closing.push(opened.pop(group))
