"""A plug-in of Coverage.py, so that measured processes whose threads end do not hang.

Coverage.py keeps a :class:`weakref.WeakKeyDictionary` of greenlets for each thread, whose entries are removed
by a callback in Python. When a thread has ended, greenlet destroys the thread's greenlet in a pending call of
the main thread, and the callback runs there. If another thread ends meanwhile, CPython 3.11 repeats the first
instruction of the traced callback for ever, because the next pending call cannot begin before the present one
has ended. A callback in C is not traced.
"""

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from coverage.collector import Collector

_lock = threading.RLock()
"""Re-entrant: the first call of a thread starts its tracer."""
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


class GreenletKeys(weakref.WeakKeyDictionary[Any, Any]):
    """A dictionary with weak keys whose entries are removed by a function in C.

    Nothing else removes an entry, and nothing iterates over the entries.
    """

    def __init__(self) -> None:
        super().__init__()
        self._remove = partial(dict.pop, self.data)  # type: ignore[attr-defined]


def coverage_init(registry: object, options: object) -> None:
    """Let the tracer of each thread use :class:`GreenletKeys`. Coverage.py calls this before it starts."""
    for name in ("_start_tracer", "_installation_trace"):
        method = getattr(Collector, name)
        if not hasattr(method, "__wrapped__"):
            setattr(Collector, name, _with_greenlet_keys(method))


def _with_greenlet_keys(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method during which the module of weak references has :class:`GreenletKeys`."""

    @wraps(method)
    def call(self: Collector, *arguments: Any) -> Any:
        with _lock:
            usual = weakref.WeakKeyDictionary
            vars(weakref)["WeakKeyDictionary"] = GreenletKeys
            try:
                return method(self, *arguments)
            finally:
                vars(weakref)["WeakKeyDictionary"] = usual

    return call
