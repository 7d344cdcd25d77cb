"""A plug-in of Coverage.py: greenlets cost measured processes little, and threads that end do not hang.

At each call and return of every function Coverage.py asks which greenlet runs, and looks in a
:class:`weakref.WeakKeyDictionary` for what it has measured there. That dictionary is written in Python and
takes twice as long as the rest of the measurement. It also hangs: an entry is removed by a callback in
Python. When a thread has ended, greenlet destroys the thread's greenlet in a pending call of the main
thread, and the callback runs there. If another thread ends meanwhile, CPython 3.11 repeats the first
instruction of the traced callback forever, because the next pending call cannot begin before the present
one has ended.

Here a greenlet is known by its id, which is noted when the thread switches to it, and the dictionary is a
usual one. Both are asked by functions in C. The next greenlet with the same id can use the entry of one that
has ended, because all its functions have returned.
"""

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial, wraps
from operator import itemgetter
from typing import Any

import greenlet
from coverage.collector import Collector

_lock = threading.RLock()
"""Re-entrant: the first call of a thread starts its tracer."""
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


def coverage_init(registry: object, options: object) -> None:
    """Let the tracer of each thread know greenlets by their ids. Coverage.py calls this before it starts."""
    for name in ("_start_tracer", "_installation_trace"):
        method = getattr(Collector, name)
        if not hasattr(method, "__wrapped__"):
            setattr(Collector, name, _with_greenlet_ids(method))


def _with_greenlet_ids(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that starts a tracer which uses a usual dictionary and the ids of greenlets.

    A tracer makes its dictionary at the first event, which is the end of the method.
    """

    @wraps(method)
    def call(self: Collector, *arguments: Any) -> Any:
        with _lock:
            usual = weakref.WeakKeyDictionary
            vars(weakref)["WeakKeyDictionary"] = dict
            if self.concur_id_func is not None:
                self.concur_id_func = current_id()
            try:
                return method(self, *arguments)
            finally:
                vars(weakref)["WeakKeyDictionary"] = usual

    return call


def current_id() -> Callable[[], int]:
    """Return a function in C that returns the id of the present greenlet of this thread."""
    current = [id(greenlet.getcurrent())]

    def switched(event: str, greenlets: tuple[object, object]) -> None:
        current[0] = id(greenlets[1])

    greenlet.settrace(switched)
    return partial(itemgetter(0), current)  # takes half the time of partial(current.__getitem__, 0)
